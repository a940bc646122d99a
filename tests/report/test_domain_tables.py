"""One table a domain: sampled and full ranking on a line, claims under their systems, figures over seeds."""

from dataclasses import replace

import pytest

from retr_hf.errors import DataError
from retr_hf.report.domain_tables import domain_tables
from retr_hf.report.results import ResultRow

ROW = ResultRow(
    recipe="recipes/intra/yelp.yaml + recipes/intra/systems/retr.yaml",
    system="RETR",
    domain="yelp",
    sources=[],
    split="test",
    protocol="full",
    candidates=20033,
    metrics={"HR@10": 0.05, "NDCG@10": 0.02, "MRR": 0.01},
    num_users=30431,
    seed=0,
    synthetic=False,
    date="2024-05-13T09:30:00+00:00",
)


def both(**change):
    """A row of each protocol, as one run leaves them."""
    row = replace(ROW, **change)
    sampled = {"protocol": "sampled", "candidates": 101, "metrics": {"HR@10": 0.7, "NDCG@10": 0.5, "MRR": 0.4}}
    return [row, replace(row, **sampled), replace(row, protocol="full-unseen")]


def parsed(markdown):
    """title -> {system: {column: cell}}, in their order."""
    tables = {}
    for block in markdown.split("## ")[1:]:
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line[:1] == "|"]
        header, _, *body = lines
        assert len({line[0] for line in body}) == len(body)
        tables[block.splitlines()[0]] = {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}
    return tables


def only(markdown):
    (table,) = parsed(markdown).values()
    return table


def test_both_rankings_stand_on_one_line_and_claims_under_the_system_in_their_own_columns():
    rows = both() + both(system="RETR (poster)") + both(system="popularity")
    text = domain_tables(rows, systems=["popularity", "SINE", "RETR (poster)", "RETR"])
    table = only(text)
    assert list(table) == [
        "popularity", "PopRec (published, poster)", "SINE", "RETR (poster)", "RETR", "RETR (published, paper)",
        "RETR (published, poster)",
    ]  # fmt: skip
    assert list(table["RETR"].items()) == [
        ("sampled HR@10", "0.7000"), ("sampled NDCG@10", "0.5000"), ("sampled MRR", "0.4000"),
        ("full HR@10", "0.0500"), ("full NDCG@10", "0.0200"), ("full MRR", "0.0100"),
    ]  # fmt: skip
    claim = table["RETR (published, paper)"]
    assert [*claim.values()] == ["0.7775", "0.5169", "0.4378", "", "", ""]
    assert set(table["SINE"].values()) == {""}
    assert "101 candidates" in text and "negatives of their own drawing" in text
    everything = only(domain_tables(rows, published="all"))
    assert "TGN (published, paper)" in everything and "temperature 2 (published, poster)" in everything
    assert not any("published" in system for system in only(domain_tables(rows, published="none")))


def test_what_a_system_costs_is_a_column_where_some_row_says_it():
    figures = {"parameters": 5300000, "items read": 100, "body GFLOPs": 0.125, "router": "pathway"}
    rows = [
        row
        for seed, auc in enumerate([[0.25, 0.5], [0.75, 0.5]])
        for row in both(seed=seed, settings=figures | {"pathway AUC": auc})
    ]
    text = domain_tables([*rows, *both(system="popularity")])
    table = only(text)
    told = {name: cell for name, cell in table["RETR"].items() if "10" not in name and "MRR" not in name}
    # 0.25 and 0.75: mean 0.5, sample deviation sqrt(2 * 0.25^2) = 0.354
    assert told == {
        "parameters": "5,300,000", "items read": "100", "body GFLOPs": "0.125", "pathway AUC": "0.5 ± 0.35 / 0.5"
    }  # fmt: skip
    assert table["popularity"]["parameters"] == ""
    assert "RETR 5.021 M and 9.558" in text and "does not say" in text  # the poster's own, in words
    assert "5.021" not in domain_tables(both(settings=figures, domain="beauty"))


def test_lines_of_one_system_are_told_apart():
    carried = both(sources=["games"]) + both(sources=["yelp"], system="S3-Rec")
    twin = both(system="SASRec") + both(system="SASRec", recipe="other.yaml")
    table = only(domain_tables([*both(), *carried, *twin], published="none"))
    assert list(table) == [
        "RETR", "RETR (from games)", "S3-Rec", "SASRec [other.yaml]",
        "SASRec [recipes/intra/yelp.yaml + recipes/intra/systems/retr.yaml]",
    ]  # fmt: skip


def test_domains_splits_and_kinds_of_data_have_tables_of_their_own():
    rows = both() + both(domain="arts") + both(split="validation") + both(synthetic=True)
    titles = list(parsed(domain_tables(rows)))
    assert titles == [
        "arts, test split, real data", "yelp, test split, real data", "yelp, validation split, real data",
        "yelp, test split, SYNTHETIC data, not a result about any real domain",
    ]  # fmt: skip
    two = both() + [replace(both()[1], candidates=1001)]
    assert list(only(domain_tables(two, protocols=["sampled"], metrics=["MRR"]))["RETR"]) == [
        "sampled among 101 MRR", "sampled among 1001 MRR"
    ]  # fmt: skip


def test_nothing_to_report_and_unknown_choices_are_errors():
    with pytest.raises(DataError, match="no result rows"):
        domain_tables([])
    with pytest.raises(DataError, match="matching, all, none; got 'some'"):
        domain_tables([ROW], published="some")
