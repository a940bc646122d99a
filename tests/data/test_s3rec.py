"""What S3-Rec reads: which items are hidden, which segments stand where, and the attributes of items."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from retr_hf.data.cloze import MASK
from retr_hf.data.ragged import layout_named
from retr_hf.data.s3rec import S3RecCollator, read_attributes
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import ItemCatalog

LENGTHS = np.array([2, 5, 9] * 40)
ITEM_IDS = np.arange(LENGTHS.sum()) % 40 + 1
SPLIT = SimpleNamespace(item_ids=ITEM_IDS, offsets=np.concatenate([[0], np.cumsum(LENGTHS)]), timestamps=None)


@pytest.mark.parametrize("layout", ["padded", "grouped"])
def test_hidden_items_and_segments(layout):
    sequences = TrainingSequences([SPLIT], [40], 6, every_step=False)
    collate = S3RecCollator(40, sequences, 0.3, layout_named(layout, 7))
    whole = sequences.slices(np.arange(len(sequences)), np.random.default_rng(0))
    assert whole.lengths.max() == 7 and collate.counts(whole) == {"num_items_in_batch": len(whole.lengths)}
    arrays = collate(whole, np.random.default_rng(0), slice(None))
    ids, real = arrays["item_ids"], arrays["attention_mask"] > 0
    flat = {name: arrays[name].ravel() for name in arrays if name.endswith("_ids")}
    ends, starts = arrays["sequence_ends"], arrays["sequence_ends"] - whole.lengths + 1
    hidden = flat["input_ids"] == MASK
    assert hidden[ends].all() and (flat["input_ids"][~hidden] == flat["item_ids"][~hidden]).all()
    assert 0.25 < np.delete(hidden, ends)[np.delete(real.ravel(), ends)].mean() < 0.35
    others = 0
    for start, end in zip(starts, ends, strict=True):
        place = slice(start, end + 1)
        inside = np.flatnonzero(flat["segment_ids"][place] != MASK)
        assert 1 <= len(inside) <= (end + 1 - start) // 2 and len(inside) == inside[-1] - inside[0] + 1
        both = flat["hidden_segment_ids"][place], flat["segment_ids"][place]
        assert np.where(both[0] == MASK, both[1], both[0]).tolist() == flat["item_ids"][place].tolist()
        assert ((both[0] == MASK) != (both[1] == MASK)).all()
        run = flat["other_segment_ids"][place]
        assert np.flatnonzero(run != MASK).tolist() == inside.tolist()
        assert (np.diff(run[inside]) % 40 == 1).all()  # consecutive in the corpus
        others += run[inside[0]] != both[1][inside[0]]
        assert not {*flat["negative_ids"][place]} & {*flat["item_ids"][place]}
    assert others > 0.9 * len(ends) and (ids[~real] == 0).all() and (arrays["input_ids"][~real] == 0).all()


def test_attributes_of_a_catalogue(tmp_path):
    catalog, path = ItemCatalog(["a", "b", "c"], ["", "", ""]), tmp_path / "attributes.parquet"
    pl.DataFrame({"item_id": ["c", "a", "x"], "attributes": [[7, 30], [7], [9]]}).write_parquet(path)
    assert read_attributes(path, catalog).astype(int).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]]
    pl.DataFrame({"item_id": ["x"], "attributes": [[9]]}).write_parquet(path)
    with pytest.raises(DataError, match="none of its items is in the catalogue"):
        read_attributes(path, catalog)
    pl.DataFrame({"item_id": ["x"]}).write_parquet(path)
    with pytest.raises(DataError, match="expected a parquet file with item_id and attributes") as refused:
        read_attributes(path, catalog)
    assert "\n" not in str(refused.value)
