"""Chances of items to be in a batch, against the batches themselves."""

import numpy as np
import pytest

from retr_hf.data import training_sequences
from retr_hf.data.candidate_sampling import CandidateSampling
from retr_hf.data.collators import PreTrainingCollator, TextTables
from retr_hf.data.domain import Sequences
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.training_sequences import TrainingSequences

NUM_ITEMS = 30, 50


def make(number, within=False, temperature=1.0, process=0, num_processes=1, window="random"):
    """Two domains: popular items and rare ones, histories of one item and of more than is read."""
    rng, domains = np.random.default_rng(0), []
    for items, histories in zip(NUM_ITEMS, (120, 60), strict=True):
        lengths, popularity = rng.integers(1, 14, histories), 0.9 ** np.arange(items)
        chosen = [1 + rng.choice(items, n, replace=False, p=popularity / popularity.sum()) for n in lengths]
        domains.append(Sequences(np.concatenate(chosen), np.concatenate([[0], np.cumsum(lengths)])))
    sequences = TrainingSequences(domains, NUM_ITEMS, max_length=6, window=window)
    mixture = Mixture(sequences.domain_sizes, temperature, seed=1)
    sampling = CandidateSampling(sequences, mixture.quotas, 8, number) if number else None
    tables = TextTables([np.ones((items + 1, 2), np.float32) for items in NUM_ITEMS])
    collate = PreTrainingCollator(tables, views=False, sampling=sampling, within_domains=within)
    return sampling, Batches(sequences, mixture, collate, 8, 1, process, num_processes)


def batches_of(batches, epochs):
    for epoch in range(epochs):
        for (arrays,) in batches.epoch(epoch):
            yield arrays


@pytest.mark.parametrize(("temperature", "window"), [(1.0, "random"), (3.0, "random"), (1.0, "last")])
def test_chances_are_how_often_items_are_there(temperature, window, monkeypatch):
    monkeypatch.setattr(training_sequences, "_HISTORIES_AT_ONCE", 50)
    sampling, batches = make(10, temperature=temperature, window=window)
    there, count = np.zeros(sum(NUM_ITEMS) + 1), 0
    for arrays in batches_of(batches, 150):
        there[arrays["table_item_ids"]] += 1
        count += 1
    wrong, error = np.abs(there / count - np.exp(sampling.log_chances))[1:], 3.5 * np.sqrt(0.25 / count)
    # e^-λ for (1 - λ/B)^B: at most 0.05 too much, where an item is in most histories.
    assert wrong.max() < 0.05 and wrong.mean() < 0.015
    rare = np.exp(sampling.log_chances[1:]) < 0.25
    assert wrong[rare].max() < error and rare.sum() > 20


def test_all_items_are_certain():
    sampling, batches = make(10_000)
    assert sampling.number == 80 and (sampling.log_chances == 0).all()
    for arrays in batches_of(batches, 1):
        assert arrays["table_item_ids"].tolist() == list(range(81))
        assert (arrays["table_log_chances"] == 0).all()


def test_what_a_batch_carries():
    sampling, batches = make(10, within=True)
    arrays = next(batches_of(batches, 1))
    assert arrays["domain_offsets"].tolist() == [0, 30, 80]
    assert (arrays["table_log_chances"] == sampling.log_chances[arrays["table_item_ids"]]).all()
    _, without = make(0)
    plain = next(batches_of(without, 1))
    assert not {"domain_offsets", "table_log_chances"} & plain.keys()
    # The histories are those that are read without; the drawn items stand beside their own.
    read = [each["table_item_ids"][each["input_ids"]].tolist() for each in (arrays, plain)]
    assert read[0] == read[1]
    targets = [each["table_item_ids"][np.maximum(each["labels"], 0)] for each in (arrays, plain)]
    assert (targets[0] == targets[1]).all()
    assert set(plain["table_item_ids"]) < set(arrays["table_item_ids"])
    assert len(arrays["table_item_ids"]) <= len(plain["table_item_ids"]) + 10


def test_processes_share_what_is_drawn():
    whole = next(batches_of(make(10)[1], 1))["table_item_ids"]
    parts = [next(batches_of(make(10, process=p, num_processes=3)[1], 1))["table_item_ids"] for p in range(3)]
    assert set(np.concatenate(parts)) == set(whole) and all(len(part) < len(whole) for part in parts)
