"""The queue of processes: order, skipping, failures, interruption, time left."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from retr_hf.errors import DataError
from retr_hf.jobs import queue as job_queue
from retr_hf.jobs.queue import JobQueue


@dataclass
class Toy:
    """A job that leaves a file of its name; ``code`` is run instead."""

    folder: Path
    name: str
    needs: str | None = None
    kind: str = "toy"
    code: str = ""
    seconds: float | None = None
    wrong: str = ""
    asked: list = field(default_factory=list)

    def done(self):
        self.asked.append(self.name)
        if self.wrong:
            raise DataError(self.wrong)
        return (self.folder / self.name).exists()

    def took(self):
        return self.seconds

    def command(self):
        return ["-c", self.code or f"open({str(self.folder / self.name)!r}, 'w').close()"]


class Ended:
    """A process that is over, with an exit code."""

    def __init__(self, returncode=0):
        self.returncode = returncode

    def poll(self):
        return self.returncode


def test_processes_run_what_is_left_and_the_rest_goes_on_after_a_failure(tmp_path):
    (tmp_path / "before").touch()
    broken = Toy(tmp_path, "broken", code="import sys; print('went wrong'); sys.exit(3)")
    jobs = [
        Toy(tmp_path, "before"),
        broken,
        Toy(tmp_path, "behind", needs="broken"),
        Toy(tmp_path, "first"),
        Toy(tmp_path, "second", needs="first"),
        Toy(tmp_path, "odd", wrong="two\nlines"),
    ]
    told = []
    queue = JobQueue(jobs, tmp_path / "logs", at_once=2, tell=told.append)
    assert [job.name for job in queue.waiting] == ["broken", "behind", "first", "second"]
    queue.run()
    assert queue.finished == {"before", "first", "second"} and (tmp_path / "second").exists()
    log = tmp_path / "logs" / "broken.log"
    assert queue.failed.keys() == {"broken", "behind", "odd"}
    assert queue.failed["broken"].startswith("exit code 3 after ")
    assert f"log {log}: went wrong" in queue.failed["broken"]
    assert queue.failed["behind"] == "needs broken, which failed" and queue.failed["odd"] == "two lines"
    assert log.read_text().splitlines()[1] == "went wrong" and log.read_text().startswith("$ python -c 'import sys")
    assert told[:2] == ["[2/6] odd: FAILED: two lines", "6 jobs, 1 of them done already"]
    assert any("] second: done in " in line for line in told) and told[-1].startswith("[6/6]")

    # The same jobs again: the log of the second attempt stands behind the first, nothing finished is run twice.
    JobQueue(jobs, tmp_path / "logs", tell=told.append).run()
    assert log.read_text().count("\nwent wrong\n") == 2
    assert (tmp_path / "logs" / "first.log").read_text().count("$ python") == 1


def test_a_job_is_asked_again_when_what_it_needs_is_fresh(tmp_path):
    (tmp_path / "late").touch()
    late = Toy(tmp_path, "late", needs="early")
    queue = JobQueue(
        [Toy(tmp_path, "early"), late], tmp_path / "logs", start=lambda *_: Ended(), tell=lambda line: None
    )
    assert late.asked == []  # whether it is done cannot be told yet
    queue.run()
    assert late.asked == ["late"] and queue.finished == {"early", "late"}


def test_no_more_than_asked_at_once_and_in_order(tmp_path):
    started, alive = [], []

    class Slow(Ended):
        def poll(self):
            if len(alive) < 2 and len(started) < 5:
                return None
            alive.remove(self)
            return 0

    def start(command, log, threads):
        process = Slow()
        started.append((log.stem, threads))
        alive.append(process)
        assert len(alive) <= 2
        return process

    JobQueue([Toy(tmp_path, name) for name in "abcde"], tmp_path, 2, start, lambda line: None).run()
    assert [name for name, _ in started] == list("abcde")


@pytest.mark.parametrize(
    ("given", "at_once", "threads"), [(None, 1, None), (None, 2, 2), (None, 3, 1), (None, 9, 1), ("3", 2, None)]
)
def test_jobs_share_the_cores(tmp_path, monkeypatch, given, at_once, threads):
    monkeypatch.setattr(job_queue, "_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert JobQueue([], tmp_path, at_once).threads == threads


def test_the_environment_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_TOY", "here")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.environ['RETR_TOY'], os.environ.get('OMP_NUM_THREADS'))"
    process = job_queue.start_process(["-c", code], tmp_path / "deep" / "x.log", 3)
    assert process.wait() == 0 and process.args[0] == sys.executable
    assert (tmp_path / "deep" / "x.log").read_text().splitlines()[-1] == "here 3"


def test_time_left_is_told_from_jobs_of_the_kind(tmp_path):
    for name in "abc":
        (tmp_path / name).touch()
    jobs = [
        Toy(tmp_path, "a", kind="finetune arts", seconds=60),
        Toy(tmp_path, "b", kind="finetune arts", seconds=120),
        Toy(tmp_path, "c", kind="finetune office", seconds=600),
        Toy(tmp_path, "d", kind="finetune arts"),  # 90 s
        Toy(tmp_path, "e", kind="finetune pantry"),  # as all fine-tuning: 780 / 3 = 260 s
    ]
    queue = JobQueue(jobs, tmp_path, tell=lambda line: None)
    assert queue.time_left() == "about 6 min left"  # 350 s
    queue.at_once = 5
    assert queue.time_left() == "about 70 s left"
    queue = JobQueue([*jobs, Toy(tmp_path, "f", kind="pretrain")], tmp_path)
    assert queue.time_left() == "more than 6 min left"
    assert JobQueue(jobs[-1:], tmp_path).time_left() == "time left not known yet"


def test_what_breaks_in_one_job_does_not_stop_the_others(tmp_path):
    class Broken(Toy):
        def done(self):
            raise json.JSONDecodeError("Expecting value", "", 0)

    def start(command, log, threads):
        if log.stem == "full":
            raise OSError(28, "No space left on device")
        (tmp_path / log.stem).touch()
        return Ended()

    queue = JobQueue([Broken(tmp_path, "broken"), Toy(tmp_path, "full"), Toy(tmp_path, "b")], tmp_path, start=start)
    queue.run()
    assert queue.finished == {"b"} and queue.failed.keys() == {"broken", "full"}
    assert "No space left" in queue.failed["full"] and "Expecting value" in queue.failed["broken"]


def test_an_interruption_ends_the_processes(tmp_path):
    class Interrupted(Ended):
        ended = []

        def poll(self):
            raise KeyboardInterrupt

        def terminate(self):
            self.ended.append("terminate")

        def wait(self):
            self.ended.append("wait")

    queue = JobQueue([Toy(tmp_path, "a")], tmp_path, start=lambda *_: Interrupted(), tell=lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        queue.run()
    assert Interrupted.ended == ["terminate", "wait"] and not queue.failed
    assert os.listdir(tmp_path) == []
