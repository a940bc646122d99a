"""How every script begins and ends: mistakes told in words, interruptions that say how to go on."""

import argparse
import ctypes
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable

from .errors import RecipeError, RetrError

# mallopt(3): no block is mapped by itself, 2 GB of freed ones stay, and the heap grows by 64 MB
MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = (-4, 0), (-1, 2**31 - 1), (-2, 2**26)


def at_least_one(text: str) -> int:
    """The type of an argument that counts. Raises argparse's error for other numbers and words."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, at least 1, came {text}")
    return int(text)


def keep_freed_memory() -> None:
    """Lets glibc keep the memory that a step frees for the next one, where nobody chose otherwise (MALLOC_...).

    By itself it gives large blocks back to the kernel, which clears every page that is asked for again: the gradient of
    an id table of 20,000 items, say, at every step. Elsewhere than on Linux with glibc nothing happens.
    """
    chosen = any(name.startswith(("MALLOC_M", "MALLOC_T", "GLIBC_TUNABLES")) for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not chosen:
        for option in (MMAP_MAX, TRIM_THRESHOLD, TOP_PAD):
            ctypes.CDLL(None).mallopt(*option)


def run(main: Callable[[], None], goes_on: str = "") -> None:
    """Runs a script's main: errors that are the user's are told in words, without a traceback, with exit code 2.

    Interrupted (130) or ended by SIGTERM (143), as schedulers do, it unwinds, and says how the work ``goes_on``.
    """

    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one, to the group, would cut the unwinding short
        raise KeyboardInterrupt("SIGTERM")

    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main_thread else None
    try:
        main()
    except (RetrError, ValueError, OSError) as error:
        if os.environ.get("RETR_DEBUG"):
            raise
        where = "" if isinstance(error, RetrError) else " (RETR_DEBUG=1 shows where)"
        process = os.environ.get("RANK", "0")
        if process == "0":
            print(f"error: {error}{where}", file=sys.stderr, flush=True)
        elif isinstance(error, RecipeError):
            # Every process met the same mistake, and the launcher ends the first one as soon as another leaves.
            time.sleep(5)
        else:
            print(f"[process {process}] error: {error}{where}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        ended = bool(interrupt.args)  # Ctrl-C has none
        if os.environ.get("RANK", "0") == "0":
            told = "ended by SIGTERM" if ended else "interrupted"
            print(f"{told}; {goes_on}" if goes_on else told, file=sys.stderr, flush=True)
        sys.exit(143 if ended else 130)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
