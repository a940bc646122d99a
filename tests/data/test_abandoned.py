"""Folders of killed processes are removed by the next run, those in use never."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retr_hf.data.readers.abandoned import held, remove_abandoned
from retr_hf.data.readers.spool import spool_beside

ROOT = Path(__file__).parents[2]
HOLD = """
import pathlib, sys, time
from retr_hf.data.readers.spool import spool_beside
with spool_beside(pathlib.Path(sys.argv[1])) as spool:
    (spool.folder / "events.part").write_bytes(b"half")
    print(spool.folder, flush=True)
    time.sleep(60)
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is sent as on POSIX systems")


def make_old(folder: Path) -> None:
    os.utime(folder / "owner", (time.time() - 3600,) * 2)


def test_a_killed_run_is_cleaned_up_by_the_next_and_a_live_one_is_not(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "d")], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        folder = Path(process.stdout.readline().strip())
        make_old(folder)
        with spool_beside(tmp_path / "d"):
            assert (folder / "events.part").is_file()  # its owner lives
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        assert folder.is_dir()
        with spool_beside(tmp_path / "other"):
            assert folder.is_dir()
        with spool_beside(tmp_path / "d"):
            assert not folder.exists()
    finally:
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_what_is_fresh_or_not_ours_stays(tmp_path):
    for name in (".d.spool-1", ".d.spool-2", ".d.spool-3", "d"):
        (tmp_path / name).mkdir()
    (tmp_path / ".d.spool-1" / "owner").touch()  # made just now
    with held(tmp_path / ".d.spool-2"), held(tmp_path / "d"):
        make_old(tmp_path / ".d.spool-2")
        make_old(tmp_path / "d")
        remove_abandoned(tmp_path, ".d.spool-")
    assert len(list(tmp_path.iterdir())) == 4  # the third has no owner's file: somebody else's
    (tmp_path / ".d.spool-2" / "owner").touch()  # as a killed process leaves it
    make_old(tmp_path / ".d.spool-2")
    remove_abandoned(tmp_path, ".d.spool-")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".d.spool-1", ".d.spool-3", "d"]
