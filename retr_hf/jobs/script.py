"""What the scripts that run many jobs share: a command line, and the way to an end whatever becomes of the jobs."""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ..entry import at_least_one
from ..training.folder_lock import hold
from ..training.recipe import Schema, describe_schema
from .queue import JobQueue


def job_parser(doc: str, schema: Schema, kind: str) -> argparse.ArgumentParser:
    """A parser of ``FILE key=value ... --jobs N --dry-run``; its help lists the keys of ``schema``.

    kind: what the file is called ("grid"), also the name of its argument.
    """
    parser = argparse.ArgumentParser(
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys of a {kind}:\n" + describe_schema(schema).replace("%", "%%"),
    )
    parser.add_argument(kind, help=f"a YAML file, such as those of recipes/{kind}s/")
    parser.add_argument("overrides", nargs="*", help=f"key=value, in YAML; wins over the {kind} file")
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="processes at a time (default 1)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to run, run nothing")
    return parser


def work_off(queue: JobQueue, output: Path, then: Callable[[], None], dry_run: bool = False) -> int:
    """Runs what is left of a queue, or prints its commands, and calls ``then`` also after a failure or Ctrl-C.

    Returns the exit code: 1 if a job failed, 130 if interrupted (SIGTERM too).

    Raises:
        RecipeError: another process works in ``output``.
    """
    if dry_run:
        for job in queue.waiting:
            print("python", shlex.join(job.command()))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    interrupted = False
    try:
        with hold(output):
            queue.run()
    except KeyboardInterrupt:
        interrupted = True
    for name, reason in queue.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    then()
    if interrupted:
        print("interrupted; the same command goes on", file=sys.stderr)
    return 130 if interrupted else 1 if queue.failed else 0
