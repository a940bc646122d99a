"""Peak memory of one side of a case: in a process of its own, for what one side has taken the other one would find."""

import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ..errors import DataError

REPETITIONS = 2  # an optimiser has all its state after the first


def peak_megabytes() -> float:
    """Most resident memory this process has held so far, in MB (2^20 bytes)."""
    try:
        # Not ru_maxrss: a process that was started by a large one inherits that one's.
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def side_peaks(source, case: str, setting) -> tuple[float | None, float | None]:
    """Peak memory in MB of a process that does one side of a case alone (ours, other): Python, torch and data included.

    (None, None) where a process cannot be started in this way (Windows).

    Raises:
        DataError: the system ended such a process.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return None, None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.cases"])  # imported once, no thread started yet
    peaks = []
    for side in ("ours", "other"):
        try:
            # An interruption is the parent's to tell.
            with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
                peaks.append(pool.submit(_one_side, source, case, setting, side).result())
        except BrokenProcessPool:
            raise DataError(
                f"{case}: the process that measured the memory of {side} was ended (too little memory?): "
                "use smaller batches, or --no-memory"
            ) from None
    return tuple(peaks)


def _one_side(source, case: str, setting, side: str) -> float:
    from .cases import CASES
    from .workload import open_workload

    pair = CASES[case].build(open_workload(source), setting)
    for n in range(REPETITIONS):
        pair.before()
        getattr(pair, side)(n)
    return peak_megabytes()
