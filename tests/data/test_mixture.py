"""Mixing domains, cutting epochs into batches, and sharing batches among processes."""

import itertools

import numpy as np
import pytest

from retr_hf.data.collators import NextItemCollator, PreTrainingCollator, TextTables
from retr_hf.data.domain import Sequences
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named
from retr_hf.data.training_sequences import TrainingSequences

NUM_ITEMS = [12, 9]
IGNORED = -100


def histories(lengths, num_items: int, seed: int = 0) -> Sequences:
    """Random histories; the first item of history r is r % num_items + 1, so that it can be told from the others."""
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    item_ids = np.random.default_rng(seed).integers(1, num_items + 1, lengths.sum()).astype(np.int32)
    item_ids[offsets[:-1]] = np.arange(len(lengths)) % num_items + 1
    return Sequences(item_ids, offsets)


def two_domains(**options) -> TrainingSequences:
    lengths = np.random.default_rng(7).integers(2, 12, size=40)
    parts = [histories(lengths[:23], NUM_ITEMS[0], 1), histories(lengths[23:], NUM_ITEMS[1], 2)]
    return TrainingSequences(parts, NUM_ITEMS, **{"max_length": 6, **options})


def text_tables(word_drop: bool = False) -> TextTables:
    """The vector of global item g is (g, 0), that of its word-dropped text (g, 1)."""
    bounds = np.concatenate([[0], np.cumsum(NUM_ITEMS)])
    tables = []
    for first, last in itertools.pairwise(bounds):
        ids = np.arange(first, last + 1, dtype=np.float32)
        tables.append(np.stack([ids, np.full_like(ids, word_drop)], axis=1))
        tables[-1][0] = 0
    return TextTables(tables)


def pre_training(**options) -> PreTrainingCollator:
    return PreTrainingCollator(text_tables(), text_tables(word_drop=True), item_drop_batches=0.5, drop=0.4, **options)


class TestMixture:
    @pytest.mark.parametrize(
        ("temperature", "cap", "quotas"),
        [
            (1.0, None, [100, 400, 900]),
            (2.0, None, [233, 467, 700]),  # roots 10 : 20 : 30 of 1400
            (1.0, 400, [100, 400, 400]),
            (2.0, 400, [180, 360, 360]),  # roots 10 : 20 : 20 of 900
            (1e9, None, [467, 467, 467]),  # uniform
        ],
    )
    def test_quotas(self, temperature, cap, quotas):
        assert Mixture(np.array([100, 400, 900]), temperature, cap).quotas.tolist() == quotas

    def test_an_empty_domain_takes_no_part_and_a_tiny_one_a_little(self):
        assert Mixture(np.array([0, 1, 10_000]), temperature=0.5).quotas.tolist() == [0, 1, 10_001]

    def test_proportional_reads_every_example_once(self):
        mixture = Mixture(np.array([30, 7]), seed=3)
        for epoch in range(3):
            assert sorted(mixture.epoch(epoch)) == list(range(37))

    def test_over_epochs_a_domain_is_read_evenly(self):
        # roots 10 : 2 of 104: an epoch leaves some of the 100 out and reads each of the 4 four or five times
        mixture = Mixture(np.array([100, 4]), temperature=2.0, seed=1)
        assert mixture.quotas.tolist() == [87, 17]
        counts = np.zeros(104, dtype=int)
        for epoch in range(8):
            counts += np.bincount(mixture.epoch(epoch), minlength=104)
            for domain in (counts[:100], counts[100:]):
                assert domain.max() - domain.min() <= 1
        assert counts[:100].sum() == 8 * 87 and counts[100:].tolist() == [34] * 4

    def test_a_repeated_domain_is_shuffled_anew(self):
        mixture = Mixture(np.array([50]), seed=1)
        assert mixture._draw(0, 0, 50).tolist() != mixture._draw(0, 50, 100).tolist()

    def test_the_order_depends_on_seed_and_epoch_alone(self):
        sizes = np.array([40, 20])
        order = Mixture(sizes, seed=5).epoch(2)
        used = Mixture(sizes, seed=5)
        list(map(used.epoch, range(4)))  # what was read before does not matter
        assert used.epoch(2).tolist() == order.tolist()
        assert Mixture(sizes, seed=6).epoch(2).tolist() != order.tolist()
        assert Mixture(sizes, seed=5).epoch(3).tolist() != order.tolist()


class TestTrainingSequences:
    def test_ids_are_unique_across_domains(self):
        sequences = two_domains(max_length=50)
        batch = sequences.slices(np.arange(len(sequences)), np.random.default_rng())
        domain = np.repeat(np.repeat([0, 1], sequences.domain_sizes), batch.lengths)
        assert sequences.domain_sizes.tolist() == [23, 17] and sequences.id_offsets.tolist() == [0, 12, 21]
        assert set(batch.tokens[domain == 0]) == set(range(1, 13))
        assert set(batch.tokens[domain == 1]) == set(range(13, 22))

    def test_without_every_step_every_prefix_is_an_example(self):
        parts = [
            Sequences(np.array([3, 1, 4, 2]), np.array([0, 4])),
            Sequences(np.array([5, 2, 1]), np.array([0, 1, 3])),
        ]
        sequences = TrainingSequences(parts, [5, 5], max_length=2, every_step=False)
        batch = sequences.slices(np.arange(len(sequences)), np.random.default_rng())
        split = np.split(batch.tokens, np.cumsum(batch.lengths)[:-1])
        # prefixes [3 1], [3 1 4], [3 1 4 2] cut to the last three; of the second domain (+ 5) one history is too short
        assert [part.tolist() for part in split] == [[3, 1], [3, 1, 4], [1, 4, 2], [7, 6]]
        assert sequences.domain_sizes.tolist() == [3, 1]

    def test_the_last_window(self):
        sequences = TrainingSequences([Sequences(np.arange(1, 10), np.array([0, 9]))], [9], max_length=3)
        assert sequences.slices(np.array([0]), np.random.default_rng()).tokens.tolist() == [6, 7, 8, 9]

    def test_random_windows_stay_inside_and_vary(self):
        rows = Sequences(np.arange(1, 24), np.array([0, 20, 23]))
        sequences = TrainingSequences([rows], [23], max_length=4, window="random")
        batches = [sequences.slices(np.array([0, 1]), np.random.default_rng(seed)) for seed in range(300)]
        starts = set()
        for batch in batches:
            assert batch.lengths.tolist() == [5, 3], "max_length + 1, and the whole of a short one"
            assert (np.diff(batch.tokens[:5]) == 1).all() and batch.tokens[5:].tolist() == [21, 22, 23]
            starts.add(int(batch.tokens[0]))
        assert starts == set(range(1, 17)), "every window can be drawn"

    def test_times_are_those_of_the_items_that_are_read(self):
        rows = Sequences(np.arange(1, 24), np.array([0, 20, 23]), 1_600_000_000 + np.arange(1, 24))
        for options in ({"window": "random"}, {"every_step": False}):
            sequences = TrainingSequences([rows, rows], [23, 23], max_length=4, **options)
            batch = sequences.slices(np.arange(len(sequences)), np.random.default_rng(0))
            assert (batch.times - 1_600_000_000).tolist() == ((batch.tokens - 1) % 23 + 1).tolist()
        untimed = TrainingSequences([rows, histories([4], 5)], [23, 5], max_length=4)
        assert untimed.slices(np.arange(3), np.random.default_rng(0)).times is None

    def test_random_windows_of_prefixes_are_refused(self):
        with pytest.raises(ValueError, match="every_step"):
            TrainingSequences([histories([4], 5)], [5], 3, every_step=False, window="random")


def steps(collate, sequences=None, batch_size=14, accumulation=1, process=0, processes=1, epoch=0, start=0, seed=0):
    sequences = sequences or two_domains(every_step=collate.every_step)
    mixture = Mixture(sequences.domain_sizes, seed=seed)
    batches = Batches(sequences, mixture, collate, batch_size, accumulation, process, processes)
    return list(batches.epoch(epoch, start))


def read(batch: dict, prefix: str = "") -> list[tuple]:
    """Each history of a packed batch as a tuple of its (input, label, negative) global ids, in any order."""
    ids, rows = batch.get("table_item_ids"), batch[f"{prefix}input_ids"]
    nothing = np.full_like(rows, IGNORED)
    labels = nothing if prefix else batch["labels"]
    negatives = batch.get("negative_ids", nothing)
    if ids is not None:  # rows of the batch's table -> global ids; a row of a word-dropped text -> minus the id
        of_row = np.where(batch["text_embeddings"][:, 1] > 0, -1, 1) * batch["text_embeddings"][:, 0].astype(int)
        assert (of_row[ids > 0] == ids[ids > 0]).all()
        rows = of_row[rows]
        labels = np.where(labels == IGNORED, IGNORED, of_row[np.maximum(labels, 0)])
    tokens = np.stack([rows, labels, negatives], axis=-1)[batch[f"{prefix}attention_mask"] > 0]
    positions = batch[f"{prefix}position_ids"][batch[f"{prefix}attention_mask"] > 0]
    return sorted(tuple(map(tuple, part.tolist())) for part in np.split(tokens, np.flatnonzero(positions == 0)[1:]))


COLLATORS = {
    "softmax": lambda: NextItemCollator(21, lay_out=layout_named("packed", 6)),
    "bpr": lambda: NextItemCollator(21, negatives=True, lay_out=layout_named("packed", 6)),
    "pretrain": lambda: pre_training(lay_out=layout_named("packed", 6)),
    "pretrain, last step": lambda: pre_training(every_step=False, lay_out=layout_named("packed", 6)),
}


class TestBatches:
    @pytest.mark.parametrize("accumulation", [1, 2])
    @pytest.mark.parametrize("name", COLLATORS)
    def test_three_processes_read_the_batch_of_one(self, name, accumulation):
        make = COLLATORS[name]
        whole = steps(make(), accumulation=accumulation)
        shares = [steps(make(), accumulation=accumulation, process=process, processes=3) for process in range(3)]
        views = 0
        for step, step_shares in zip(whole, zip(*shares, strict=True), strict=True):
            for micro, micro_shares in zip(step, zip(*step_shares, strict=True), strict=True):
                for prefix in ("", "view_") if "view_input_ids" in micro else ("",):
                    union = sum((read(share, prefix) for share in micro_shares), [])
                    assert sorted(union) == read(micro, prefix)
                    views += prefix == "view_" and read(micro, prefix) != [
                        tuple((token, IGNORED, IGNORED) for token, _, _ in one) for one in read(micro)
                    ]
                sizes = [len(read(share)) for share in micro_shares]
                assert max(sizes) - min(sizes) <= 1
                for share in micro_shares:
                    assert share["num_items_in_batch"] == micro["num_items_in_batch"]
        assert bool(views) == name.startswith("pretrain"), "views differ from the histories"

    def test_an_epoch_reads_every_history_once(self):
        sequences = two_domains()
        expected = []
        for example in range(len(sequences)):
            one = sequences.slices(np.array([example]), np.random.default_rng()).tokens.tolist()
            expected.append(tuple((item, label, IGNORED) for item, label in itertools.pairwise(one)))
        found = [
            one
            for step in steps(NextItemCollator(21, lay_out=layout_named("packed", 6)))
            for micro in step
            for one in read(micro)
        ]
        assert sorted(found) == sorted(expected)

    @pytest.mark.parametrize("name", COLLATORS)
    def test_starting_at_a_step_is_skipping_the_ones_before(self, name):
        whole, rest = (steps(COLLATORS[name](), epoch=1, start=start) for start in (0, 2))
        assert len(rest) == len(whole) - 2 > 0
        for before, after in zip(whole[2:], rest, strict=True):
            for one, other in zip(before, after, strict=True):
                assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)

    def test_batches_change_with_the_epoch_and_the_seed(self):
        first = steps(COLLATORS["bpr"]())
        for other in (steps(COLLATORS["bpr"](), epoch=1), steps(COLLATORS["bpr"](), seed=1)):
            assert read(first[0][0]) != read(other[0][0])

    def test_random_windows_vary_with_the_epoch(self):
        sequences = TrainingSequences([histories([40] * 4, 30)], [30], max_length=5, window="random")
        collate = NextItemCollator(30, lay_out=layout_named("packed", 5))
        seen = {str(read(steps(collate, sequences, epoch=epoch)[0][0])) for epoch in range(5)}
        assert len(seen) == 5

    @pytest.mark.parametrize("accumulation", [2, 3, 5])
    def test_micro_batches_cover_the_batch(self, accumulation):
        whole, parts = (steps(COLLATORS["softmax"](), accumulation=number) for number in (1, accumulation))
        for (large,), cut in zip(whole, parts, strict=True):
            assert len(cut) == accumulation
            assert sorted(sum(map(read, cut), [])) == read(large)
            sizes = [len(read(micro)) for micro in cut]
            assert max(sizes) - min(sizes) <= 1

    def test_losses_are_divided_by_the_counts_of_the_global_batch(self):
        (whole,) = steps(COLLATORS["pretrain"](), batch_size=40)[0]
        (step,) = steps(COLLATORS["pretrain"](), batch_size=40, accumulation=3, process=1, processes=2)
        assert len(step) == 3
        assert whole["num_items_in_batch"] == (whole["labels"] != IGNORED).sum()
        assert whole["num_sequences_in_batch"] == len(whole["sequence_ends"]) == 40
        for micro in step:
            assert micro["num_items_in_batch"] == whole["num_items_in_batch"]
            assert micro["num_sequences_in_batch"] == 40
        (last_only,) = steps(COLLATORS["pretrain, last step"](), batch_size=40)[0]
        assert last_only["num_items_in_batch"] == (last_only["labels"] != IGNORED).sum() == 40

    def test_a_rest_too_small_for_every_process_is_left_out(self):
        # 40 sequences in batches of 12 leave 4: enough for 2 processes x 2 micro-batches, not for 5 x 1
        assert len(steps(COLLATORS["softmax"](), None, 12, accumulation=2, processes=2)) == 4
        kept = steps(COLLATORS["softmax"](), None, 12, process=4, processes=5)
        assert len(kept) == 3 and all(len(read(micro)) >= 2 for step in kept for micro in step)

    @pytest.mark.parametrize(("batch_size", "accumulation", "processes"), [(4, 1, 5), (5, 3, 2), (64, 6, 7)])
    def test_batches_too_small_for_every_process_are_refused(self, batch_size, accumulation, processes):
        with pytest.raises(ValueError, match=f"at least {accumulation * processes} sequences"):
            steps(COLLATORS["softmax"](), None, batch_size, accumulation, 0, processes)
