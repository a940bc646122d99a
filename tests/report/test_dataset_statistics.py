"""The statistics of domains as a table, beside the published counts of the same name."""

from retr_hf.report.dataset_statistics import published_counts, statistics_table

NUMBERS = {
    "users": 10, "items": 4, "interactions": 36, "mean_length": 3.6, "median_length": 3.0, "density": 0.9,
    "train_rows": 10, "validation_rows": 8, "test_rows": 8,
}  # fmt: skip


def test_names_are_compared_without_case_and_signs():
    assert published_counts("scientific") == {"cross_domain": [8442, 4385, 59427]}
    assert published_counts("movielens_1m") == published_counts("MovieLens-1M") != {}
    assert published_counts("online-retail") == {"cross_domain": [16520, 3469, 519906]}
    assert published_counts("shop") == {}


def test_repeats_give_no_negative_sparsity():
    # 3 users with one item, 18 times: more interactions than pairs, so that repeats hide how many pairs there are
    repeats = NUMBERS | {"users": 3, "items": 1, "interactions": 18}
    shop, full = statistics_table({"shop": repeats, "full": repeats | {"interactions": 3}}).splitlines()[1:]
    assert shop.endswith("18.0  unknown (repeats)") and "-" not in shop
    assert full.endswith("0.00 %")


def test_a_published_domain_has_a_line_under_it():
    header, ours, theirs, shop = statistics_table({"Scientific": NUMBERS, "shop": NUMBERS}).splitlines()
    assert header.split()[:4] == ["domain", "users", "items", "interactions"]
    assert ours.split() == ["Scientific", "10", "4", "36", "3.6", "3.0", "0.9", "10", "8", "9.0", "10.00", "%"]
    # 59427 / 8442 = 7.04 an user, 59427 / 4385 = 13.6 an item, 1 - 59427 / (8442 * 4385) = 99.84 %
    assert theirs.split() == [
        "published",
        "(cross-domain)",
        "8,442",
        "4,385",
        "59,427",
        "7.04",
        "0.00161",
        "13.6",
        "99.84",
        "%",
    ]
    assert shop.split()[0] == "shop"
