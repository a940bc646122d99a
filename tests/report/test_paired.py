"""Pairs of runs by hand arithmetic; the quantiles of Student's t are those of printed tables."""

from dataclasses import replace

import pytest

from retr_hf.errors import DataError
from retr_hf.report.paired import pair, paired_difference, paired_differences, paired_tables
from retr_hf.report.results import ResultRow

ROW = ResultRow(
    recipe="recipes/finetune/scientific.yaml + recipes/systems/x_retr.yaml",
    system="X-RETR",
    domain="scientific",
    sources=["games", "yelp"],
    split="test",
    protocol="full",
    candidates=4385,
    metrics={"HR@10": 0.1, "NDCG@10": 0.05},
    num_users=8442,
    seed=0,
    synthetic=False,
    date="2024-05-13T09:30:00+00:00",
)


def runs(pretrained, scratch, **change):
    """Rows of the same system: NDCG@10 by seed, with and without pre-training."""
    return [
        replace(ROW, sources=sources, seed=seed, metrics={"NDCG@10": value}, **change)
        for sources, values in ((ROW.sources, pretrained), ([], scratch))
        for seed, value in values.items()
    ]


def parsed(markdown):
    """{(protocol, domain): {system: {column: cell}}}."""
    tables = {}
    for block in markdown.split("\n## "):
        protocol = block.split()[0] if block[0] != "#" else block.split()[1]
        for part in block.split("### ")[1:]:
            lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line[:1] == "|"]
            header, _, *body = lines
            cells = {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}
            tables[protocol, part.splitlines()[0]] = cells
    return tables


def only(markdown):
    (table,) = parsed(markdown).values()
    return table


def test_the_interval_of_three_pairs():
    # differences 1, 2, 6: mean 3, deviations -2, -1, 3, sd √((4 + 1 + 9) / 2) = √7; t at 97.5 %, 2 degrees: 4.30265
    difference = paired_difference([(2, 1), (3, 1), (10, 4)])
    assert difference.mean == 3 and difference.n == 3 and difference.base == 2
    assert difference.margin == pytest.approx(4.302653 * (7 / 3) ** 0.5, rel=1e-6)
    assert str(difference) == "+3.0000 [-3.5724, +9.5724] (+150.0 %, n=3)"


def test_two_pairs_are_wide_and_one_has_no_interval():
    # differences 0.1 and 0.3: mean 0.2, sd √0.02, over √2: 0.1; t at 97.5 %, 1 degree: 12.7062
    assert paired_difference([(0.2, 0.1), (0.4, 0.1)]).margin == pytest.approx(1.27062, rel=1e-5)
    assert str(paired_difference([(0.3, 0.4)])) == "-0.1000 (-25.0 %, n=1)"


def test_the_same_seeds_are_paired_and_the_others_only_averaged():
    rows = runs({0: 0.3, 1: 0.5, 7: 0.7}, {1: 0.4, 0: 0.1, 9: 0.9})
    cells = only(paired_tables(rows, published="none"))["X-RETR"]
    assert cells["sources"] == "games, yelp"
    assert cells["NDCG@10 pre-trained"] == "0.5000 ± 0.2000 (n=3)"
    assert cells["NDCG@10 without"] == "0.4667 ± 0.4041 (n=3)"
    # seeds 0 and 1: 0.2 and 0.1, mean 0.15, sd 0.0707, over √2: 0.05, times 12.7062: 0.6353; base (0.1 + 0.4) / 2
    assert cells["NDCG@10 difference"] == "+0.1500 [-0.4853, +0.7853] (+60.0 %, n=2)"
    assert cells["HR@10 pre-trained"] == cells["HR@10 difference"] == ""


def test_what_was_measured_with_another_recipe_is_no_twin():
    rows = runs({0: 0.3}, {}) + runs({}, {0: 0.1}, recipe="recipes/other.yaml")
    table = only(paired_tables(rows, published="none"))
    assert len(table) == 2 and all(cells["NDCG@10 difference"] == "" for cells in table.values())


def test_two_lists_of_sources_stand_against_the_same_twin():
    rows = runs({0: 0.3}, {0: 0.1}) + [replace(ROW, sources=["food"], metrics={"NDCG@10": 0.05})]
    assert [(line.sources, line.difference("NDCG@10").mean) for line in pair(rows)] == [
        (("games", "yelp"), pytest.approx(0.2)),
        (("food",), pytest.approx(-0.05)),
    ]


def test_two_initial_models_stand_against_the_same_twin_and_are_told_apart():
    four, eight = replace(ROW, init="runs/four", seed=0), replace(ROW, init="runs/eight", seed=0)
    rows = [*runs({}, {0: 0.1}), four, replace(eight, metrics={"NDCG@10": 0.3})]
    lines = pair(rows)
    assert [(line.recipe, line.difference("NDCG@10").n) for line in lines] == [
        (f"{ROW.recipe} + init=runs/four", 1), (f"{ROW.recipe} + init=runs/eight", 1)
    ]  # fmt: skip
    assert [line.recipe for line in pair(rows[:2])] == [ROW.recipe]


def test_other_cutoffs_than_the_usual_are_shown():
    rows = [replace(ROW, metrics={"HR@5": 0.25, "MRR": 0.5})]
    cells = only(paired_tables(rows, published="none"))["X-RETR"]
    assert cells["HR@5 pre-trained"] == "0.2500" and cells["MRR pre-trained"] == "0.5000"


def test_systems_have_their_order_and_an_empty_row_without_runs():
    rows = runs({0: 0.3}, {0: 0.1}) + [replace(ROW, system="popularity", sources=[], recipe="scripts/evaluate.py")]
    table = only(paired_tables(rows, ["UniSRec", "X-RETR"], "all", metrics=["NDCG@10"]))
    assert list(table)[:3] == ["UniSRec", "X-RETR", "popularity"] and "RecGURU" in list(table)[3:]
    assert table["UniSRec"] == {
        "sources": "", "NDCG@10 pre-trained": "", "NDCG@10 without": "", "NDCG@10 difference": "",
        "NDCG@10 published": "0.0634",
    }  # fmt: skip
    assert table["popularity"]["NDCG@10 without"] == "0.0500" and table["popularity"]["NDCG@10 published"] == ""
    assert list(only(paired_tables(rows, published="matching"))) == ["popularity", "X-RETR"]


def test_protocols_domains_and_synthetic_data_have_tables_of_their_own():
    rows = [
        *runs({0: 0.3}, {0: 0.1}),
        *runs({0: 0.4}, {0: 0.1}, domain="arts"),
        *runs({0: 0.5}, {0: 0.1}, protocol="full-unseen"),
        *runs({0: 0.6}, {0: 0.1}, synthetic=True),
        *runs({0: 0.7}, {0: 0.1}, split="validation"),
        *runs({0: 0.8}, {0: 0.1}, protocol="sampled"),
    ]
    text = paired_tables(rows, published="all")
    assert list(parsed(text))[:3] == [("full", "arts"), ("full", "scientific"), ("full-unseen", "scientific")]
    assert text.count("### ") == 4 and text.count("## full ranking, test split, real data") == 1
    unseen, synthetic = text.split("## full-unseen")[1].split("## full ranking, test split, SYNTHETIC")
    assert "published" not in unseen and "published" not in synthetic  # nobody printed those
    assert "0.7000" not in text and "0.8000" not in text
    assert "### scientific, 4385 candidates" in paired_tables(rows, protocols=["sampled"])


def test_what_a_figure_draws():
    rows = runs({0: 0.3, 1: 0.5}, {0: 0.1, 1: 0.4}) + runs({0: 0.3}, {0: 0.1}, system="A")
    (panel,) = paired_differences(rows, "NDCG@10", ["X-RETR"]).items()
    assert panel == (
        "scientific, full",
        [("X-RETR", pytest.approx(0.15), pytest.approx(0.63531, rel=1e-4)), ("A", pytest.approx(0.2), 0.0)],
    )
    with pytest.raises(DataError, match="nothing to draw"):
        paired_differences(runs({0: 0.3}, {1: 0.1}), "NDCG@10")


def test_mistakes_are_told():
    with pytest.raises(DataError, match="no result rows to pair"):
        paired_tables([replace(ROW, split="validation")])
    with pytest.raises(DataError, match="published must be one of"):
        paired_tables([ROW], published="some")
