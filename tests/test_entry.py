"""How a script ends: exit codes, and what is told in place of a traceback."""

import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from retr_hf.entry import run
from retr_hf.errors import DataError, TrainingError


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX systems")
def test_a_run_that_is_ended_says_how_it_goes_on(capsys):
    with ThreadPoolExecutor() as threads:  # no place for a handler of signals
        assert threads.submit(run, lambda: None).result() is None

    def twice():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # as a group gets it: does not cut this short
            print("tidied", file=sys.stderr)

    def interrupt():  # a worker of pytest-xdist ignores the signal itself
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    ends = (twice, 143, "tidied\nended by SIGTERM"), (interrupt, 130, "interrupted")
    for main, code, told in ends:
        with pytest.raises(SystemExit) as stopped:
            run(main, "--resume goes on")
        assert stopped.value.code == code and signal.getsignal(signal.SIGTERM) == before
        assert capsys.readouterr().err == f"{told}; --resume goes on\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("x.csv: expected y"), "error: x.csv: expected y\n"),
        (TrainingError("the loss is nan"), "error: the loss is nan\n"),
        (ValueError("wrong"), "error: wrong (RETR_DEBUG=1 shows where)\n"),
        (OSError(28, "No space left on device", "a"), "error: [Errno 28] No space left on device: 'a' (RETR_DEBUG=1"),
    ],
)
def test_what_a_user_can_mend_is_told_in_words(error, told, monkeypatch, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit, match="2"):
        run(main)
    assert capsys.readouterr().err.startswith(told)
    monkeypatch.setenv("RETR_DEBUG", "1")
    with pytest.raises(type(error)):
        run(main)


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError):
        run({}.popitem)


FAULTS = """
import ctypes, os, resource, sys
import torch
from retr_hf.entry import keep_freed_memory
ctypes.CDLL(None).mallopt(-3, 2**17)  # M_MMAP_THRESHOLD: large blocks are given back in any case, not by luck
if sys.argv[1] == "kept":
    keep_freed_memory()

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(4 << 20) for _ in range(8)]  # 8 x 16 MB: 32,768 pages of 4 KB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print([step() for _ in range(5)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory of other C libraries is left alone")
def test_memory_that_a_step_frees_is_there_for_the_next():
    def faults(how, **variables):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < faults("not") / 10
    assert faults("kept", MALLOC_TOP_PAD_="131072") > 1000, "what the user chose stands"
