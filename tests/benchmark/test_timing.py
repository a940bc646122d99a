"""Turns are taken, and numbers are the right way round. No test here asks how long anything takes."""

import numpy as np

from retr_hf.benchmark.timing import ProductLimit, alternate, ratio


def test_sides_take_turns_and_do_the_same_work():
    done = []
    seconds = alternate(
        [lambda n: done.append(("a", n)), lambda n: done.append(("b", n))],
        repeats=2,
        warmup=1,
        before=lambda: done.append("before"),
    )
    turns = [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert done == [step for turn in turns for step in ("before", turn)]
    assert seconds.shape == (2, 2) and (seconds >= 0).all()


def test_a_ratio_is_one_of_rounds():
    assert ratio(np.array([1.0, 2.0, 4.0]), np.array([3.0, 4.0, 40.0])) == (3.0, 2.0, 10.0)


def test_the_limit_counts_a_product_right(monkeypatch):
    clock = iter([10.0, 10.5])
    limit = ProductLimit(size=100)
    monkeypatch.setattr("retr_hf.benchmark.timing.time.perf_counter", lambda: next(clock))
    limit.measure()
    assert limit.gflops == 2 * 100**3 / 0.5 / 1e9
