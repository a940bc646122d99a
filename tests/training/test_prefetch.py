"""Order, errors and the end of the thread."""

import threading
import time

import pytest

from retr_hf.training.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_it_is_map():
    assert list(prefetch(iter(range(50)), lambda item: item * 2)) == list(range(0, 100, 2))
    assert list(prefetch(iter([]), str)) == []
    assert not threads()


def test_it_runs_ahead_but_not_far():
    made = []
    ahead = prefetch(iter(range(50)), made.append, depth=3)
    next(ahead)
    deadline = time.monotonic() + 20
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert len(made) == 5  # one taken, three waiting, one made and not yet let in
    ahead.close()


def test_errors_come_in_their_place():
    def fails_at_two(item):
        if item == 2:
            raise OSError("disk")
        return item

    taken = []
    with pytest.raises(OSError, match="disk"):
        taken.extend(iter_into(taken, prefetch(iter(range(9)), fails_at_two)))
    assert taken == [0, 1] and not threads()


def iter_into(taken, items):
    for item in items:
        taken.append(item)
    return []


def test_the_thread_ends_when_the_loop_is_left():
    for item in prefetch(iter(range(10**9)), lambda item: item):
        if item == 3:
            break
    deadline = time.monotonic() + 20
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()
