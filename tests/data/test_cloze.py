"""Cloze examples: how many items are hidden, which, and where they are asked for."""

from types import SimpleNamespace

import numpy as np
import pytest

from retr_hf.data.cloze import MASK, ClozeCollator, ClozeSequences
from retr_hf.data.collators import IGNORED
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named

LENGTHS = np.array([2, 5, 9, 3] * 50)
ITEM_IDS = np.arange(LENGTHS.sum()) % 40 + 1
SPLIT = SimpleNamespace(item_ids=ITEM_IDS, offsets=np.concatenate([[0], np.cumsum(LENGTHS)]), timestamps=None)


def sequences(share=0.4, last_share=0.0, max_length=7, **options):
    return ClozeSequences([SPLIT], [40], max_length, share, last_share, **options)


def draw(seed=0, **options):
    return sequences(**options).slices(np.arange(200), np.random.default_rng(seed))


def test_so_many_are_hidden_and_are_the_targets():
    batch = draw()
    hidden = batch.labels != IGNORED
    assert np.array_equal(hidden, batch.tokens == MASK)
    assert batch.lengths[:4].tolist() == [2, 5, 7, 3]  # no more than the model reads
    counts = np.add.reduceat(hidden.astype(int), batch.first)
    assert counts[:4].tolist() == [1, 2, 3, 1]  # max(1, round(0.4 n))
    whole = np.where(hidden, batch.labels, batch.tokens)
    assert whole[:7].tolist() == ITEM_IDS[:7].tolist() and whole[7:14].tolist() == ITEM_IDS[9:16].tolist()


def test_every_place_is_as_likely():
    hidden = np.concatenate([(draw(seed).tokens[2:7] == MASK)[None] for seed in range(400)])
    assert (abs(hidden.mean(0) - 0.4) < 0.12).all()  # of 5 items 2; five standard deviations


@pytest.mark.parametrize("last_share", [1.0, 0.5])
def test_a_share_hides_the_last_alone(last_share):
    batch = draw(last_share=last_share)
    hidden, last = batch.tokens == MASK, batch.first + batch.lengths - 1
    alone = hidden[last] & (np.add.reduceat(hidden.astype(int), batch.first) == 1)
    longer = batch.lengths >= 5  # the others hide one in any case
    assert alone[longer].mean() == 1 if last_share == 1 else 0.25 < alone[longer].mean() < 0.75


@pytest.mark.parametrize("layout", ["padded", "packed", "grouped"])
def test_batches_count_what_is_hidden_over_all_parts(layout):
    examples = sequences()
    make = [Batches(examples, Mixture(examples.domain_sizes), ClozeCollator(layout_named(layout, 7)), 64, 2, p, 2)
            for p in range(2)]  # fmt: skip
    for parts in zip(*(batches.epoch(0) for batches in make), strict=True):
        arrays = [micro for process in parts for micro in process]
        targets = sum((micro["labels"] != IGNORED).sum() for micro in arrays)
        assert {micro["num_items_in_batch"] for micro in arrays} == {targets}
        assert all(((micro["input_ids"] == MASK) == (micro["labels"] != IGNORED)).all() for micro in arrays)
