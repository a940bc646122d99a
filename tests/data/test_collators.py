"""Batches by hand: what stands where, packed or not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from retr_hf.data.collators import NextItemCollator, PreTrainingCollator, TextTables
from retr_hf.data.ragged import RaggedBatch, layout_named
from retr_hf.data.training_sequences import TrainingSequences

ALL = slice(None)
I = -100  # noqa: E741  no target
# Two domains of 5 and 4 items: global ids 1 .. 5 and 6 .. 9.
FIRST = np.array([[0, 0], [1, 10], [2, 20], [3, 30], [4, 40], [5, 50]], dtype=np.float32)
SECOND = np.array([[0, 0], [6, 60], [7, 70], [8, 80], [9, 90]], dtype=np.float32)
TABLES = TextTables([FIRST, SECOND])
WORD_DROP = TextTables([-FIRST, -SECOND])  # the word-dropped text of an item: minus its vector


def ragged(*sequences: list[int]) -> RaggedBatch:
    return RaggedBatch(np.concatenate([np.array(s) for s in sequences]), np.array([len(s) for s in sequences]))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestTextTables:
    @pytest.mark.parametrize("ids", [[0, 1, 5, 6, 9], [0, 0, 3, 7], [2, 3], [8], [0], [], [5, 6], [0, 6]])
    def test_rows_of_several_domains(self, ids):
        rows = TABLES.rows(np.array(ids, dtype=np.int64))
        assert rows.tolist() == [[number, 10 * number] for number in ids]

    def test_three_domains(self):
        tables = TextTables([FIRST, SECOND, 100 + FIRST])
        assert tables.rows(np.array([0, 4, 8, 10, 14]))[:, 0].tolist() == [0, 4, 8, 101, 105]


class TestNextItemCollator:
    batch = ragged([4, 1, 3], [2, 5], [1, 2, 3, 4])

    def test_one_history_a_row(self):
        arrays = NextItemCollator(5)(self.batch, generator(), ALL)
        assert arrays.keys() == {"input_ids", "attention_mask", "labels"}
        assert arrays["input_ids"].tolist() == [[4, 1, 0], [2, 0, 0], [1, 2, 3]]
        assert arrays["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
        assert arrays["labels"].tolist() == [[1, 3, I], [5, I, I], [2, 3, 4]]

    def test_packed(self):
        arrays = NextItemCollator(5, lay_out=layout_named("packed", 4))(self.batch, generator(), ALL)
        assert arrays["input_ids"].tolist() == [[1, 2, 3, 2], [4, 1, 0, 0]]
        assert arrays["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
        assert arrays["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
        assert arrays["labels"].tolist() == [[2, 3, 4, 5], [1, 3, I, I]]

    def test_grouped(self):
        arrays = NextItemCollator(5, lay_out=layout_named("grouped", 4))(self.batch, generator(), ALL)
        assert arrays["length_groups"] == ((1, 3), (1, 2), (1, 1)) and "position_ids" not in arrays
        assert arrays["input_ids"].tolist() == [[1, 2, 3, 4, 1, 2]]
        assert arrays["labels"].tolist() == [[2, 3, 4, 1, 3, 5]]

    def test_last_step_alone(self):
        arrays = NextItemCollator(5, every_step=False)(self.batch, generator(), ALL)
        assert arrays["input_ids"].tolist() == [[4, 1, 0], [2, 0, 0], [1, 2, 3]]
        assert arrays["labels"].tolist() == [[I, 3, I], [5, I, I], [I, I, 4]]

    def test_a_process_reads_its_share(self):
        arrays = NextItemCollator(5)(self.batch, generator(), slice(1, None, 2))
        assert arrays["input_ids"].tolist() == [[2]] and arrays["labels"].tolist() == [[5]]

    def test_counts_are_of_all_processes(self):
        assert NextItemCollator(5).counts(self.batch) == {"num_items_in_batch": 2 + 1 + 3}
        assert NextItemCollator(5, every_step=False).counts(self.batch) == {"num_items_in_batch": 3}

    @pytest.mark.parametrize("every_step", [True, False])
    def test_all_layouts_hold_the_same(self, every_step):
        rng = generator(3)
        batch = ragged(*(rng.integers(1, 100, length).tolist() for length in rng.integers(2, 12, 60)))
        found = []
        for name, width in (("padded", 0), ("grouped", 0), ("packed", 11), ("packed", 30)):
            arrays = NextItemCollator(99, every_step, lay_out=layout_named(name, width))(batch, rng, ALL)
            real = arrays["attention_mask"] > 0
            positions = positions_of(arrays)
            triples = zip(arrays["input_ids"][real], arrays["labels"][real], positions[real], strict=True)
            found.append(sorted(triples))
            assert (arrays["input_ids"][~real] == 0).all() and (arrays["labels"][~real] == I).all()
        assert found[0] == found[1] == found[2] == found[3]

    def test_negatives_are_no_items_of_the_own_history(self):
        rng = generator(1)
        batch = ragged(*(rng.integers(1, 13, length).tolist() for length in rng.integers(2, 11, 300)))
        arrays = NextItemCollator(12, negatives=True)(batch, rng, ALL)
        targets = arrays["labels"] != I
        owner = np.repeat(np.arange(300), batch.lengths)
        for row in range(300):
            own, drawn = set(batch.tokens[owner == row]), set(arrays["negative_ids"][row][targets[row]])
            assert drawn and not drawn & own and drawn <= set(range(1, 13))
        assert (arrays["negative_ids"][~targets] == 0).all()

    def test_negatives_are_uniform_over_the_others(self):
        batch = ragged(*[[1, 2, 3]] * 4000)  # 8000 targets, items 4 .. 11 each a thousand times
        drawn = NextItemCollator(11, negatives=True)(batch, generator(), ALL)["negative_ids"]
        counts = np.bincount(drawn.ravel(), minlength=12)
        assert counts[:4].sum() == 0 and (abs(counts[4:] - 1000) < 150).all()  # five standard deviations

    def test_a_history_of_all_items_leaves_no_negative(self):
        with pytest.raises(ValueError, match="holds all 3 items"):
            NextItemCollator(3, negatives=True)(ragged([1, 2], [3, 1, 2, 1]), generator(), ALL)
        arrays = NextItemCollator(4, negatives=True)(ragged([3, 1, 2, 1]), generator(), ALL)
        assert arrays["negative_ids"].tolist() == [[4, 4, 4]]

    @pytest.mark.parametrize("every_step", [True, False])
    def test_negatives_avoid_the_whole_history_and_not_only_what_is_read(self, every_step):
        """Three of nine items are read; the user has had 1 .. 8, so 9 is the only negative."""
        item_ids, offsets = np.array([1, 2, 3, 4, 5, 6, 7, 8, 5, 9, 9]), np.array([0, 9, 11])
        split = SimpleNamespace(item_ids=item_ids, offsets=offsets, timestamps=None)
        sequences = TrainingSequences([split], [9], max_length=2, every_step=every_step)
        assert sequences.seen().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10 + 9]
        collate = NextItemCollator(9, every_step, negatives=True, seen=sequences.seen())
        first = np.flatnonzero(sequences.owners == 0)
        arrays = collate(sequences.slices(first, generator()), generator(), ALL)
        assert set(arrays["negative_ids"][arrays["labels"] != I].tolist()) == {9}
        second = np.flatnonzero(sequences.owners == 1)
        drawn = {int(collate(sequences.slices(second, generator()), generator(seed), ALL)["negative_ids"].max())
                 for seed in range(99)}  # fmt: skip
        assert drawn == set(range(1, 9))
        with pytest.raises(ValueError, match="holds all 8 items"):
            NextItemCollator(8, negatives=True, seen=np.arange(1, 9))

    @pytest.mark.parametrize("layout", ["padded", "packed", "grouped"])
    def test_times_stand_where_their_items_stand(self, layout):
        batch = replace(self.batch, times=1_600_000_000 + np.arange(len(self.batch.tokens)))
        arrays = NextItemCollator(5, lay_out=layout_named(layout, 4))(batch, generator(), ALL)
        assert arrays["times"].dtype == np.int64
        item_at = dict(zip(batch.times.tolist(), batch.tokens.tolist(), strict=True)) | {0: 0}
        assert [item_at[time] for time in arrays["times"].ravel().tolist()] == arrays["input_ids"].ravel().tolist()
        assert arrays["times"][arrays["times"] > 0].size == len(set(arrays["times"].flat) - {0}) == 2 + 1 + 3
        mine = NextItemCollator(5)(batch, generator(), slice(1, None, 2))
        assert (mine["times"] - 1_600_000_000).tolist() == [[3]]


class TestPreTrainingCollator:
    batch = ragged([7, 2, 7], [5, 2], [9, 6, 1, 5])

    def test_the_table_holds_each_item_once_with_its_text(self):
        arrays = PreTrainingCollator(TABLES, views=False)(self.batch, generator(), ALL)
        assert arrays["table_item_ids"].tolist() == [0, 1, 2, 5, 6, 7, 9]
        assert arrays["text_embeddings"].tolist() == [[number, 10 * number] for number in [0, 1, 2, 5, 6, 7, 9]]
        assert not any(name.startswith("view_") for name in arrays)

    def test_inputs_and_labels_are_rows_of_the_table(self):
        arrays = PreTrainingCollator(TABLES, views=False)(self.batch, generator(), ALL)
        assert arrays["input_ids"].tolist() == [[5, 2, 0], [3, 0, 0], [6, 4, 1]]
        assert arrays["labels"].tolist() == [[2, 5, I], [2, I, I], [4, 1, 3]]
        assert arrays["sequence_ends"].tolist() == [1, 3, 8]
        last = PreTrainingCollator(TABLES, every_step=False, views=False)(self.batch, generator(), ALL)
        assert last["labels"].tolist() == [[I, 5, I], [2, I, I], [I, I, 3]]

    def test_packed(self):
        arrays = PreTrainingCollator(TABLES, views=False, lay_out=layout_named("packed", 4))(
            self.batch, generator(), ALL
        )
        assert arrays["input_ids"].tolist() == [[6, 4, 1, 3], [5, 2, 0, 0]]
        assert arrays["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
        assert arrays["labels"].tolist() == [[4, 1, 3, 2], [2, 5, I, I]]
        assert arrays["sequence_ends"].tolist() == [5, 3, 2], "in the order of the histories, not of the rows"

    def test_the_table_of_a_process_holds_its_own_items(self):
        collate = PreTrainingCollator(TABLES, views=False)
        arrays = collate(self.batch, generator(), slice(1, None, 2))
        assert arrays["table_item_ids"].tolist() == [0, 2, 5]
        assert collate.counts(self.batch) == {"num_items_in_batch": 6, "num_sequences_in_batch": 3}

    @pytest.mark.parametrize("layout", ["padded", "packed", "grouped"])
    def test_a_view_drops_items_and_keeps_the_first_and_the_order(self, layout):
        rng = generator(5)
        batch = ragged(*([first, *rng.permutation(8)[:6] + 1, 9] for first in rng.integers(1, 10, 200)))
        arrays = PreTrainingCollator(TABLES, drop=0.4, lay_out=layout_named(layout, 8))(batch, rng, ALL)
        ids = arrays["table_item_ids"]
        inputs, views = (read_by_ends(ids[arrays[f"{name}input_ids"]], arrays, name) for name in ("", "view_"))
        dropped = 0
        for given, view in zip(inputs, views, strict=True):
            assert len(given) == 7 and view[0] == given[0]
            rest = iter(given[1:])
            assert all(item in rest for item in view[1:]), "a subsequence"
            dropped += len(given) - len(view)
        assert abs(dropped / (200 * 6) - 0.4) < 0.07  # five standard deviations
        assert (arrays["view_input_ids"][arrays["view_attention_mask"] == 0] == 0).all()

    def test_a_view_replaces_texts_by_those_without_some_words(self):
        rng = generator(6)
        batch = ragged(*(rng.integers(1, 10, 8).tolist() for _ in range(100)))
        arrays = PreTrainingCollator(TABLES, WORD_DROP, drop=0.3, item_drop_batches=0.0)(batch, rng, ALL)
        given, view = (arrays["text_embeddings"][arrays[f"{name}input_ids"]] for name in ("", "view_"))
        assert given.shape == view.shape == (100, 7, 2)
        same, opposite = (given == view).all(axis=-1), (given == -view).all(axis=-1)
        assert (same ^ opposite).all(), "each item's own text, or its own word-dropped text"
        assert abs(opposite.mean() - 0.3) < 0.09
        # the rows of word-dropped texts are no candidates: they have no id, and no history or label names them
        extra = arrays["text_embeddings"][:, 0] < 0
        assert (arrays["table_item_ids"][extra] == 0).all() and extra.any()
        assert not extra[arrays["input_ids"]].any() and not extra[arrays["labels"]].any()
        assert arrays["view_attention_mask"].tolist() == arrays["attention_mask"].tolist()
        assert arrays["view_sequence_ends"].tolist() == arrays["sequence_ends"].tolist()

    @pytest.mark.parametrize("layout", ["padded", "packed", "grouped"])
    @pytest.mark.parametrize("item_drop_batches", [0.0, 1.0])
    def test_times_follow_into_the_view(self, layout, item_drop_batches):
        rng = generator(2)
        rows = [rng.integers(1, 10, length).tolist() for length in rng.integers(2, 9, 40)]
        whole = replace(ragged(*rows), times=10_000 + np.arange(sum(map(len, rows))))
        arrays = PreTrainingCollator(TABLES, WORD_DROP, item_drop_batches=item_drop_batches, drop=0.4,
                                     lay_out=layout_named(layout, 8))(whole, rng, ALL)  # fmt: skip
        vectors, item_at = arrays["text_embeddings"][:, 0], dict(zip(whole.times.tolist(), whole.tokens, strict=True))
        for prefix, count in (("", 1.0), ("view_", 1 - 0.4 * item_drop_batches)):
            times, items = arrays[f"{prefix}times"], np.abs(vectors[arrays[f"{prefix}input_ids"]])
            assert [item_at.get(time, 0) for time in times.ravel().tolist()] == items.ravel().tolist()
            real = int((times > 0).sum())
            assert len(set(times.flat)) - (real < times.size) == real
            assert real == sum(len(row) - 1 for row in rows) or (count < 1 and real < sum(len(row) - 1 for row in rows))

    def test_one_coin_a_batch_decides_what_is_dropped(self):
        batch = ragged(*[[1, 2, 3, 4, 5, 6, 7, 8, 9]] * 10)
        collate = PreTrainingCollator(TABLES, WORD_DROP, item_drop_batches=0.75)
        words = 0
        for seed in range(400):
            arrays = collate(batch, generator(seed), ALL)
            by_word = (arrays["text_embeddings"] < 0).any()
            words += by_word
            assert by_word == (arrays["view_attention_mask"].sum() == 80), "never both"
        assert abs(words / 400 - 0.25) < 0.11


def positions_of(arrays: dict, prefix: str = "") -> np.ndarray:
    """[R, W] place of each token in its own history, in any layout."""
    if (groups := arrays.get(f"{prefix}length_groups")) is not None:
        return np.concatenate([np.tile(np.arange(columns), count) for count, columns in groups])[None]
    shape = arrays[f"{prefix}input_ids"].shape
    return arrays.get(f"{prefix}position_ids", np.broadcast_to(np.arange(shape[1]), shape))


def read_by_ends(rows: np.ndarray, arrays: dict, prefix: str) -> list[list[int]]:
    """The histories in the order of ``sequence_ends``: back from each end to its position 0."""
    mask = arrays[f"{prefix}attention_mask"]
    positions = positions_of(arrays, prefix).ravel()
    assert mask.ravel()[arrays[f"{prefix}sequence_ends"]].all()
    return [rows.ravel()[end - positions[end] : end + 1].tolist() for end in arrays[f"{prefix}sequence_ends"]]
