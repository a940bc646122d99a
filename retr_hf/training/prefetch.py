"""The next batches are made while this one is trained on."""

from collections.abc import Callable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

Made = TypeVar("Made")
Ready = TypeVar("Ready")


def prefetch(items: Iterator[Made], prepare: Callable[[Made], Ready], depth: int = 2) -> Iterator[Ready]:
    """``map(prepare, items)``, computed by one thread at most ``depth`` items ahead, in the same order.

    What ``items`` and ``prepare`` raise is raised here, in its place. The thread ends with the iterator, also where it
    is left early. Neither may draw from a global random state: the order of draws would depend on the thread.
    """
    queue: Queue = Queue(depth)
    left = Event()

    def offer(message: tuple) -> bool:
        while not left.is_set():
            try:
                queue.put(message, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer((prepare(item), None, False)):
                    return
            offer((None, None, True))
        except BaseException as error:  # raised again by the one who asked
            offer((None, error, True))

    thread = Thread(target=work, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            ready, error, last = queue.get()
            if error is not None:
                raise error
            if last:
                return
            yield ready
    finally:
        left.set()
        thread.join()
