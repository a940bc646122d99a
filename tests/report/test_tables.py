"""Tables by hand arithmetic; numbers of different kinds never meet."""

from dataclasses import replace

import pytest

from retr_hf.errors import DataError
from retr_hf.report.domain_tables import domain_tables
from retr_hf.report.paired import paired_tables
from retr_hf.report.published import published_numbers, published_results
from retr_hf.report.results import ResultRow
from retr_hf.report.tables import result_tables

ROW = ResultRow(
    recipe="recipes/scientific.yaml",
    system="X-RETR",
    domain="scientific",
    sources=["games", "yelp"],
    split="test",
    protocol="full",
    candidates=4385,
    metrics={"HR@10": 0.1, "NDCG@10": 0.05},
    num_users=8442,
    seed=1,
    synthetic=False,
    date="2024-05-13T09:30:00+00:00",
)


def parsed(markdown):
    """[(title, {(system, sources): {column: cell}})] of all tables in the text."""
    tables = []
    for block in markdown.split("## ")[1:]:
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line[:1] == "|"]
        header, _, *body = lines
        rows = {tuple(line[:2]): dict(zip(header[2:], line[2:], strict=True)) for line in body}
        tables.append((block.splitlines()[0], rows))
    return tables


def only(markdown):
    ((title, rows),) = parsed(markdown)
    return rows


def test_mean_and_sample_deviation_over_seeds():
    rows = [replace(ROW, seed=seed, metrics={"HR@10": value}) for seed, value in enumerate([0.1, 0.2, 0.6])]
    # mean 0.3; deviations -0.2, -0.1, 0.3: sqrt((0.04 + 0.01 + 0.09) / 2) = 0.2646
    assert only(result_tables(rows, "none")) == {
        ("X-RETR", "games, yelp"): {"scientific HR@10": "0.3000 ± 0.2646 (n=3)"}
    }


def test_one_seed_has_no_deviation_and_a_missing_domain_is_empty():
    rows = [ROW, replace(ROW, system="SASRec", sources=[], domain="arts", recipe="recipes/arts.yaml")]
    assert only(result_tables(rows, "none")) == {
        ("SASRec", "from scratch"): {
            "arts HR@10": "0.1000", "arts NDCG@10": "0.0500", "scientific HR@10": "", "scientific NDCG@10": ""
        },
        ("X-RETR", "games, yelp"): {
            "arts HR@10": "", "arts NDCG@10": "", "scientific HR@10": "0.1000", "scientific NDCG@10": "0.0500"
        },
    }  # fmt: skip


def test_two_recipes_on_one_domain_are_two_rows_and_on_two_domains_one():
    other_domain = replace(ROW, domain="arts", recipe="recipes/arts.yaml")
    assert len(only(result_tables([ROW, other_domain], "none"))) == 1
    twin = replace(ROW, recipe="recipes/twin.yaml", metrics={"HR@10": 0.9, "NDCG@10": 0.9})
    table = only(result_tables([ROW, twin], "none"))
    assert table["X-RETR [recipes/scientific.yaml]", "games, yelp"]["scientific HR@10"] == "0.1000"
    assert table["X-RETR [recipes/twin.yaml]", "games, yelp"]["scientific HR@10"] == "0.9000"


def test_two_recipes_are_told_apart_where_their_cutoffs_put_them_into_two_tables():
    twin = replace(ROW, recipe="recipes/twin.yaml", metrics={"HR@20": 0.2})
    lines = [next(iter(rows))[0] for _, rows in parsed(result_tables([ROW, twin], "none"))]
    assert lines == ["X-RETR [recipes/scientific.yaml]", "X-RETR [recipes/twin.yaml]"]


@pytest.mark.parametrize("tables", [result_tables, paired_tables, domain_tables])
def test_a_metric_that_no_row_has(tables):
    with pytest.raises(DataError, match=r"no row has the metric HR@20, hr@10: the rows have HR@10, NDCG@10$"):
        tables([ROW], metrics=["HR@20", "NDCG@10", "hr@10"])


def test_sources_are_rows_of_their_own():
    assert len(only(result_tables([ROW, replace(ROW, sources=[])], "none"))) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "full-unseen"},
        {"synthetic": True},
        {"split": "validation"},
        {"metrics": {"HR@10": 0.1}},
    ],
    ids=str,
)
def test_different_kinds_of_numbers_have_their_own_tables(change):
    assert len(parsed(result_tables([ROW, replace(ROW, **change)], "none"))) == 2


def test_sampled_rankings_with_other_numbers_of_candidates_are_kept_apart():
    sampled = replace(ROW, protocol="sampled", candidates=101)
    text = result_tables([sampled, replace(sampled, candidates=1001)])
    assert len(parsed(text)) == 2 and ", 101 candidates" in text and ", 1001 candidates" in text
    # full ranking: catalogues differ from domain to domain and share a table
    assert len(parsed(result_tables([ROW, replace(ROW, domain="arts", candidates=21019)]))) == 1


def test_synthetic_tables_say_so_come_last_and_have_no_published_numbers():
    text = result_tables([replace(ROW, synthetic=True), ROW])
    (real, _), (synthetic, rows) = parsed(text)
    assert "real data" in real and "SYNTHETIC" in synthetic
    assert list(rows) == [("X-RETR", "games, yelp")]


def test_published_numbers_stand_beside_in_rows_of_their_own():
    table = only(result_tables([ROW]))
    claim = table["X-RETR (published)", "Food, Home, CDs, Kindle, Movies"]
    assert claim == {"scientific HR@10": "0.1459", "scientific NDCG@10": "0.0865"}
    assert len(table) == 2  # UniSRec is not among the rows
    assert len(only(result_tables([ROW], "all"))) == 1 + 7
    assert len(only(result_tables([ROW], "none"))) == 1


@pytest.mark.parametrize(
    "change",
    [{"protocol": "full-unseen"}, {"protocol": "sampled"}, {"split": "validation"}, {"domain": "home"}],
    ids=str,
)
def test_published_numbers_stand_beside_comparable_rows_only(change):
    assert "published" not in result_tables([replace(ROW, **change)], "all").lower()


def test_printed_sampled_rankings_stand_beside_the_same_protocol_and_data_set():
    beauty = {"domain": "beauty", "system": "SASRec", "sources": [], "protocol": "sampled", "candidates": 101}
    row = replace(ROW, **beauty, num_users=22363, metrics={"HR@10": 0.5, "MRR": 0.3})
    claim = only(result_tables([row]))["SASRec (published, poster)", "from scratch"]
    assert claim == {"beauty HR@10": "0.4696", "beauty MRR": "0.2852"}
    for change in ({"candidates": 100}, {"num_users": 22362}, {"split": "validation"}, {"synthetic": True}):
        assert "published" not in result_tables([replace(row, **change)], "all").lower()
    netflix = replace(row, domain="netflix")  # its users are not printed, so nobody can tell whether it is the same
    assert "published" not in result_tables([netflix], "all").lower()


def test_our_names_are_matched_with_the_printed_ones():
    row = replace(ROW, protocol="sampled", candidates=101, domain="yelp", num_users=30431, sources=[])
    named = [replace(row, system=name) for name in ("popularity", "RETR (poster)", "2 heads", "S3-Rec with pathway")]
    claims = {label: cells for (label, _), cells in only(result_tables(named)).items() if "published" in label}
    assert claims == {
        "PopRec (published, poster)": {"yelp HR@10": "0.3609", "yelp NDCG@10": "0.2007"},
        "RETR (published, paper)": {"yelp HR@10": "0.7775", "yelp NDCG@10": "0.5169"},
        "RETR (published, poster)": {"yelp HR@10": "0.7730", "yelp NDCG@10": "0.5136"},
        "2 heads (published, paper)": {"yelp HR@10": "", "yelp NDCG@10": ""},
    }


def test_a_metric_nobody_published_is_an_empty_cell():
    rows = only(result_tables([replace(ROW, metrics={"HR@50": 0.3, "HR@10": 0.1})]))
    assert rows["X-RETR (published)", "Food, Home, CDs, Kindle, Movies"]["scientific HR@50"] == ""


def test_metrics_stand_in_their_usual_order():
    names = ["MRR", "NDCG@50", "HR@100", "NDCG@10", "HR@10"]
    row = replace(ROW, metrics=dict.fromkeys(names, 0.1))
    (cells,) = only(result_tables([row], "none")).values()
    assert [column.split()[1] for column in cells] == ["HR@10", "HR@100", "NDCG@10", "NDCG@50", "MRR"]


def test_a_bar_in_a_name_does_not_break_the_table():
    text = result_tables([replace(ROW, system="a|b")], "none")
    assert r"a\|b" in text


def test_nothing_to_report_and_unknown_choices_are_errors():
    with pytest.raises(DataError, match="no result rows"):
        result_tables([])
    with pytest.raises(DataError, match="matching, all, none; got 'some'"):
        result_tables([ROW], "some")


def test_published_numbers_are_complete():
    assert {claim.domain for claim in published_results("full")} == {
        "Scientific", "Pantry", "Instruments", "Arts", "Office"
    }  # fmt: skip
    assert len(published_results("full")) == 5 * 7
    assert published_numbers()["intra_domain_paper"]["Yelp"]["RETR"] == [0.7775, 0.5169, 0.4378]


def test_a_choice_of_protocols_and_metrics():
    rows = [ROW, replace(ROW, protocol="sampled", candidates=101)]
    text = result_tables(rows, published="none", protocols=["full"], metrics=["NDCG@10"])
    assert only(text) == {("X-RETR", "games, yelp"): {"scientific NDCG@10": "0.0500"}}
    with pytest.raises(DataError, match="less narrow"):
        result_tables(rows[:1], protocols=["sampled"])


def test_a_domain_that_was_prepared_anew_is_another_column():
    """Its rows are neither seeds of the older ones nor beside them."""
    rows = [replace(ROW, seed=0), replace(ROW, seed=1), replace(ROW, seed=2, num_users=201)]
    for tables in (result_tables(rows), paired_tables(rows), domain_tables(rows)):
        assert f"{ROW.domain} (201 users)" in tables and f"{ROW.domain} ({ROW.num_users:,} users)" in tables
        assert "n=3" not in tables and "(n=2)" in tables
    fewer = [replace(ROW, candidates=99), replace(ROW, protocol="sampled", candidates=101)]
    told = result_tables([ROW, *fewer])
    assert f"{ROW.domain} (99 items)" in told and told.count(f"({ROW.candidates:,} items)") and "(101" not in told
    assert ROW.domain in result_tables(rows[:2]) and "users)" not in result_tables(rows[:2])
