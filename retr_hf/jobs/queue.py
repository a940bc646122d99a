"""Runs jobs as processes of their own: skips what is done, goes on after a failure, tells the time left.

A job is known by its name; what it may need is another job's name. Whether it is done is asked when its turn comes, so
that a job behind a fresh result is not taken for done. Interrupted, the running processes are ended and nothing is
lost but what they had not written: the same jobs can be run again.
"""

import os
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Protocol

from ..errors import RetrError

PAUSE = 0.1  # seconds between two looks at the running processes


class Job(Protocol):
    """One command.

    Attributes:
        name: of the job, also of its log.
        kind: jobs of one kind take about as long; the first word is a wider kind.
        needs: name of a job that has to be done before, or None.
    """

    name: str
    kind: str
    needs: str | None

    def done(self) -> bool:
        """Whether there is nothing to do; RetrError if what is there is in the way."""

    def took(self) -> float | None:
        """Seconds that a job done before took, where that is known."""

    def command(self) -> list[str]:
        """What stands after ``python``."""


def start_process(command: list[str], log: Path, threads: int | None) -> subprocess.Popen:
    """Python with a command, in our environment, its output added to a log; ``threads`` None leaves that to torch."""
    log.parent.mkdir(parents=True, exist_ok=True)
    share = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    with open(log, "a", encoding="utf-8") as file:
        print("$ python", shlex.join(command), file=file, flush=True)
        return subprocess.Popen(
            [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **share}
        )


class JobQueue:
    """Jobs, and how far they are.

    Args:
        jobs: in the order they should start; what a job needs stands before it.
        logs: folder of the logs, one a job.
        at_once: processes at a time; each gets its share of the cores, unless OMP_NUM_THREADS is set: that is for each.
        start: starts a command and gives what ``subprocess.Popen`` gives; None means ``start_process``.
        tell: is told a line for everything that happens.

    Attributes:
        finished: names of the jobs that are done.
        failed: name -> what became of it.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        logs: Path,
        at_once: int = 1,
        start: Callable[[list[str], Path, int | None], subprocess.Popen] | None = None,
        tell: Callable[[str], None] = print,
    ):
        self.jobs, self.logs, self.at_once, self.tell = list(jobs), Path(logs), at_once, tell
        self.start = start or start_process
        self.threads = None if at_once == 1 or "OMP_NUM_THREADS" in os.environ else max(1, _cores() // at_once)
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self.waiting: list[Job] = []
        self.running: dict[str, tuple[Job, subprocess.Popen, float]] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for job in self.jobs:
            if not (self._ready(job) and self._settled(job)):
                self.waiting.append(job)

    def run(self) -> None:
        """Until nothing waits. KeyboardInterrupt, and any error, ends the running processes and is passed on."""
        self.tell(f"{len(self.jobs)} jobs, {len(self.finished)} of them done already")
        try:
            while self.waiting or self.running:
                self._start_some()
                if not self._collect():
                    time.sleep(PAUSE)
        except BaseException:
            for _, process, _ in self.running.values():
                process.terminate()
            for _, process, _ in self.running.values():
                process.wait()
            raise

    def log_of(self, job: Job) -> Path:
        """Where a job's output goes."""
        return self.logs / f"{job.name}.log"

    def time_left(self) -> str:
        """In words, from the jobs that are finished: of the same kind, else of the wider kind."""
        left, unknown = 0.0, False
        now = time.monotonic()
        begun = {name: now - began for name, (_, _, began) in self.running.items()}
        for job in [*self.waiting, *(job for job, _, _ in self.running.values())]:
            wider = [s for kind, times in self.seconds.items() if kind.split()[0] == job.kind.split()[0] for s in times]
            times = self.seconds.get(job.kind) or wider
            unknown = unknown or not times
            left += max(0.0, fmean(times) - begun.get(job.name, 0.0)) if times else 0.0
        if unknown and not left:
            return "time left not known yet"
        return f"{'more than' if unknown else 'about'} {_duration(left / self.at_once)} left"

    def _ready(self, job: Job) -> bool:
        return job.needs is None or job.needs in self.finished

    def _settled(self, job: Job) -> bool:
        """Whether there is nothing to start: the job is done, or cannot be."""
        try:
            if not job.done():
                return False
            self.finished.add(job.name)
            if (took := job.took()) is not None:
                self.seconds[job.kind].append(took)
        except (RetrError, OSError, ValueError) as error:
            self._fail(job, " ".join(str(error).split()))
        return True

    def _start_some(self) -> None:
        for job in list(self.waiting):
            if len(self.running) == self.at_once:
                return
            if job.needs in self.failed:
                self._fail(job, f"needs {job.needs}, which failed")
            elif not self._ready(job):
                continue
            elif not self._settled(job):
                self._begin(job)
            self.waiting.remove(job)

    def _begin(self, job: Job) -> None:
        try:
            process = self.start(job.command(), self.log_of(job), self.threads)
        except (OSError, ValueError) as error:
            self._fail(job, f"could not be started: {error}")
            return
        self.tell(f"{self._place()} {job.name}: started, log {self.log_of(job)}")
        self.running[job.name] = job, process, time.monotonic()

    def _collect(self) -> bool:
        """Takes in the processes that ended; whether there was any."""
        ended = [entry for entry in self.running.values() if entry[1].poll() is not None]
        for job, process, began in ended:
            del self.running[job.name]
            took = time.monotonic() - began
            if process.returncode:
                told = f"exit code {process.returncode} after {_duration(took)}, log {self.log_of(job)}"
                self._fail(job, f"{told}: {_last_line(self.log_of(job))}")
                continue
            self.finished.add(job.name)
            self.seconds[job.kind].append(took)
            left = f"; {self.time_left()}" if self.waiting or self.running else ""
            self.tell(f"{self._place()} {job.name}: done in {_duration(took)}{left}")
        return bool(ended)

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[job.name] = reason
        self.tell(f"{self._place()} {job.name}: FAILED: {reason}")

    def _place(self) -> str:
        total = str(len(self.jobs))
        return f"[{len(self.finished) + len(self.failed):>{len(total)}}/{total}]"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_line(log: Path) -> str:
    return next(filter(None, reversed(log.read_text(encoding="utf-8", errors="replace").splitlines())), "")


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{hours:.1f} h"
