"""Systems against one of them, by hand arithmetic."""

from dataclasses import replace

import pytest

from retr_hf.errors import DataError
from retr_hf.report.against import against_tables
from retr_hf.report.results import ResultRow

ROW = ResultRow(
    recipe="recipes/intra/toys.yaml", system="SASRec", domain="toys", sources=[], split="test", protocol="full",
    candidates=100, metrics={"NDCG@10": 0.1}, num_users=50, seed=0, synthetic=False, date="2024-05-13T09:30:00+00:00",
)  # fmt: skip


def runs(system, domain, values, **change):
    return [
        replace(ROW, system=system, domain=domain, seed=seed, metrics={"NDCG@10": value}, **change)
        for seed, value in values.items()
    ]


def table(text):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    header, _, *body = lines
    return {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in body}


ROWS = [
    *runs("SASRec", "toys", {0: 0.1, 1: 0.2}),
    *runs("RETR", "toys", {0: 0.2, 1: 0.5, 2: 0.9}, recipe="another"),
    *runs("SASRec", "yelp", {0: 0.4}),
    *runs("RETR", "yelp", {0: 0.6}),
    *runs("BERT4Rec", "yelp", {0: 0.3, 5: 0.9}),
]


def test_pairs_are_of_one_seed_and_domain():
    text = against_tables(ROWS, "SASRec")
    assert "system minus SASRec" in text and text.startswith("## full ranking, test split, real data")
    cells = table(text)
    # toys: +0.1 and +0.3, mean 0.2, sd 0.1414, over the root of 2 0.1, times 12.7062; the base is 0.15
    assert cells["RETR"]["toys"] == "+0.2000 [-1.0706, +1.4706] (+133.3 %, n=2)"
    assert cells["RETR"]["yelp"] == "+0.2000 (+50.0 %, n=1)"
    # all: 0.1, 0.3, 0.2: mean 0.2, sd 0.1, over the root of 3, times 4.30265; the base is 0.7 / 3
    assert cells["RETR"]["all domains"] == "+0.2000 [-0.0484, +0.4484] (+85.7 %, n=3)"
    assert cells["BERT4Rec"] == {
        "sources": "", "toys": "", "yelp": "-0.1000 (-25.0 %, n=1)", "all domains": "",
    }  # fmt: skip
    assert "SASRec" not in cells


def test_what_differs_in_kind_is_never_subtracted():
    """Other sources, protocols, splits, numbers of candidates, synthetic data."""
    same = runs("SASRec", "toys", {0: 0.1}) + runs("RETR", "toys", {0: 0.2})
    for change in ({"sources": ["games"]}, {"protocol": "sampled"}, {"split": "validation"}, {"synthetic": True}):
        other = runs("BERT4Rec", "toys", {0: 0.3}, **change)
        assert "BERT4Rec" not in against_tables(same + other, "SASRec")
    sampled = [replace(row, protocol="sampled") for row in same] + runs(
        "BERT4Rec", "toys", {0: 0.3}, protocol="sampled", candidates=1000
    )
    assert "BERT4Rec" not in against_tables(sampled, "SASRec")
    made = [replace(row, synthetic=True) for row in same]
    assert against_tables(same + made, "SASRec").count("SYNTHETIC") == 1


def test_mistakes():
    with pytest.raises(DataError, match="no row of 'SASREC'; the systems are BERT4Rec, RETR, SASRec"):
        against_tables(ROWS, "SASREC")
    with pytest.raises(DataError, match="no row has the metric MRR"):
        against_tables(ROWS, "SASRec", metrics=["MRR"])
    with pytest.raises(DataError, match="nothing to compare"):
        against_tables(ROWS, "SASRec", protocols=["sampled"])
    twice = runs("RETR", "yelp", {0: 0.1}, recipe="another")
    with pytest.raises(
        DataError, match="RETR on yelp, seed 0, was measured twice, as recipes/intra/toys.yaml .* as another"
    ):
        against_tables(ROWS + twice, "SASRec")
