"""Temporary folders that outlive a killed process: which of them are nobody's any more.

A process holds a lock on a file in its folder as long as it lives; when it is killed (SIGKILL), the system lets go of
it. A process id would not do: it comes again, and means nothing on another machine that shares the disk.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_OWNER = "owner"
_FRESH = 60.0  # seconds that a folder is left alone: its owner may have made the file and not locked it yet


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """``folder`` is in use until the context, or the process, ends."""
    with FileLock(folder / _OWNER):
        yield


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes folders of ``parent`` that begin with ``prefix``, were ``held`` by a process and are no more."""
    for folder in [one for one in parent.iterdir() if one.name.startswith(prefix)]:
        try:
            if time.time() - (folder / _OWNER).stat().st_mtime < _FRESH:
                continue
            with FileLock(folder / _OWNER, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):  # held, or no folder of ours, or another process was quicker
            continue
