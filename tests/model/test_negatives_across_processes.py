"""On one process; tests/training/test_processes.py trains on two."""

import torch

from retr_hf.model.negatives_across_processes import gather_rows, unique_across_processes


def test_one_process_keeps_its_rows():
    rows = torch.randn(5, 2)
    whole, first = gather_rows(rows)
    assert whole is rows and first == 0


def test_unique_items_leave_padding_out_and_keep_the_first():
    items, ids = torch.randn(5, 2), torch.tensor([0, 9, 4, 9, 0])
    unique, unique_ids, row, values = unique_across_processes(items, ids, torch.arange(5.0))
    assert torch.equal(unique, items[[2, 1]]) and unique_ids.tolist() == [4, 9] and values.tolist() == [2, 1]
    assert unique_across_processes(items, ids)[3] is None
    assert row[[1, 2, 3]].tolist() == [1, 0, 1]
