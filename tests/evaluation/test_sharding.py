"""Two processes give the ranks of one; an error on one ends both."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retr_hf.evaluation.sharding import sharded_ranks, take_rows

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import numpy as np, torch, torch.distributed as dist
from retr_hf.errors import DataError
from retr_hf.evaluation.ranking import full_ranks
from retr_hf.evaluation.sharding import sharded_ranks, take_rows

dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
generator = np.random.default_rng(0)
users, items = 101, 60
queries = torch.from_numpy(generator.normal(size=(users, 5)))
table = torch.from_numpy(generator.normal(size=(items, 5)))
targets = generator.integers(1, items, users)
lengths = generator.integers(0, 9, users)
seen = generator.integers(1, items, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])

asked = []
def rank_rows(rows):
    asked.extend(rows.tolist())
    return full_ranks(lambda part: queries[rows[part]], table, targets[rows], take_rows(seen, rows), user_chunk=8)

ranks = sharded_ranks(rank_rows, users)
whole = full_ranks(queries, table, targets, seen)
assert set(ranks) == {"full", "full-unseen"}
assert all(np.array_equal(ranks[name], whole[name]) for name in whole)
assert asked == list(range(dist.get_rank(), users, 2))

one = sharded_ranks(lambda rows: {"full": rows + 1}, 1)  # fewer users than processes
assert one["full"].tolist() == [1]

def fails_on_the_second(rows):
    if dist.get_rank() == 1:
        raise DataError("no scores")
    return {"full": rows + 1}

try:
    sharded_ranks(fails_on_the_second, users)
except Exception as error:
    print(type(error).__name__, str(error).replace(chr(10), " "))
dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "rendezvous"), str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    assert outputs[0][0].strip() == "RetrError evaluation failed on another process process 1: DataError: no scores"
    assert outputs[1][0].strip() == "DataError no scores"


def test_without_a_group_it_is_a_plain_call():
    assert sharded_ranks(lambda rows: {"full": rows + 1}, 4)["full"].tolist() == [1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        sharded_ranks(lambda rows: 1 // 0, 4)


def test_take_rows():
    ragged = np.array([5, 6, 7, 8, 9]), np.array([0, 2, 2, 5])  # [5 6], [], [7 8 9]
    values, offsets = take_rows(ragged, np.array([2, 0]))
    assert values.tolist() == [7, 8, 9, 5, 6] and offsets.tolist() == [0, 3, 5]
    values, offsets = take_rows(ragged, np.array([1]))
    assert values.tolist() == [] and offsets.tolist() == [0, 0]
