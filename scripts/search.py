"""The same small search for every system: some values of some keys, on validation items alone, each run a process.

    python scripts/search.py recipes/searches/scientific.yaml --dry-run       # the commands, nothing is run
    python scripts/search.py recipes/searches/scientific.yaml --jobs 2        # two at a time share the cores
    python scripts/search.py recipes/searches/intra.yaml "finetune=[recipes/intra/toys.yaml]" output=runs/search/toys
    python scripts/finetune.py recipes/finetune/scientific.yaml runs/search/scientific/scientific/x_retr.yaml  # chosen

Opens a search file; leaves runs, their tries as JSON lines, table.md, and for every domain and system a system file
with the values chosen, which recipes and grids take in the place of the one that was searched. Goes on as
scripts/grid.py does. Exit code 1 if a run failed.
"""

import os
import sys
from pathlib import Path

from retr_hf.entry import run
from retr_hf.jobs.queue import JobQueue
from retr_hf.jobs.script import job_parser, work_off
from retr_hf.jobs.search import TABLE_FILE, Search, SearchSettings
from retr_hf.training.recipe import load_recipe

SCHEMA = {"": SearchSettings}


def main() -> None:
    args = job_parser(__doc__, SCHEMA, "search").parse_intermixed_args()
    settings = load_recipe(args.search, args.overrides, SCHEMA).run
    search = Search(settings, scripts=os.path.relpath(Path(__file__).parent))
    for sentence in search.left_out:
        print(f"left out: {sentence}")
    queue = JobQueue(search.jobs, search.output / "logs", args.jobs, tell=lambda line: print(line, flush=True))
    sys.exit(work_off(queue, search.output, lambda: conclude(search, queue), args.dry_run))


def conclude(search: Search, queue: JobQueue) -> None:
    """Writes what the runs that are done came to, and tells it."""
    if not queue.finished:
        return
    written = search.conclude(queue.finished)
    table = search.output / TABLE_FILE
    print(table.read_text(encoding="utf-8"), end="")
    print(f"wrote {', '.join(map(str, [table, *written]))}")


if __name__ == "__main__":
    run(main)
