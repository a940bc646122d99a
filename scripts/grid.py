"""A table of the papers: every system on every target and seed, pre-trained and from scratch, each run a process.

    python scripts/grid.py recipes/grids/cross_domain.yaml --dry-run                 # the commands, nothing is run
    python scripts/grid.py recipes/grids/cross_domain.yaml --jobs 2                  # two at a time share the cores
    python scripts/grid.py recipes/grids/cross_domain.yaml "seeds=[0]" output=runs/one    # a part of it
    python scripts/grid.py recipes/grids/intra.yaml "finetune=[recipes/intra/beauty.yaml]"    # nothing pre-trained
    python scripts/grid.py recipes/grids/smoke.yaml                                  # the synthetic world, minutes

Opens a grid file, leaves model folders, logs, result rows and table.md in its output folder. What is finished is
skipped, what was interrupted goes on, what failed leaves its log and does not stop the others: the same command again
runs what is left. Exit code 1 if a run failed.
"""

import os
import sys
from pathlib import Path

from retr_hf.cost import with_costs
from retr_hf.entry import run
from retr_hf.errors import DataError
from retr_hf.jobs.grid import TABLE_FILE, GridSettings, Plan
from retr_hf.jobs.queue import JobQueue
from retr_hf.jobs.script import job_parser, work_off
from retr_hf.model.item_catalog import write_whole
from retr_hf.report.domain_tables import domain_tables
from retr_hf.report.paired import paired_differences, paired_tables
from retr_hf.report.plots import plot_differences
from retr_hf.report.results import read_rows
from retr_hf.training.recipe import load_recipe

SCHEMA = {"": GridSettings}
FIGURE_METRIC = "NDCG@10"


def main() -> None:
    parser = job_parser(__doc__, SCHEMA, "grid")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the paired differences of NDCG@10")
    args = parser.parse_intermixed_args()
    grid = load_recipe(args.grid, args.overrides, SCHEMA).run
    plan = Plan(grid, scripts=os.path.relpath(Path(__file__).parent))
    for sentence in plan.left_out:
        print(f"left out: {sentence}")
    queue = JobQueue(plan.jobs, plan.output / "logs", args.jobs, tell=lambda line: print(line, flush=True))
    sys.exit(work_off(queue, plan.output, lambda: write_table(plan, grid, queue, args.figure), args.dry_run))


def write_table(plan: Plan, grid: GridSettings, queue: JobQueue, figure: Path | None) -> None:
    """The table of the rows that are there, and what is missing in it and why.

    What a job left that is not done, or not any more, is no row of it: it was made with another recipe or model.
    """
    rows = read_rows(plan.rows) if plan.rows.is_file() else []
    undone = [job for job in plan.jobs if job.name not in queue.finished]
    rows = [row for row in rows if not any(job.made(row) for job in undone)]
    if not rows:
        return
    failed = queue.failed
    about = [grid.description, f"Pre-trained with {grid.pretrain}." if grid.pretrain else "From scratch."]
    missing = [f"- {sentence}" for sentence in plan.left_out] + [
        f"- {name}: {reason}" for name, reason in failed.items()
    ]
    about += ["\n".join(["Left out or failed:", *missing])] if missing else []
    if grid.pretrain:
        tables = paired_tables(rows, plan.systems, published="all")
    else:
        tables = domain_tables(with_costs(rows), plan.systems, "matching" if grid.variants else "all")
    text = "\n\n".join([*filter(None, about), tables])
    path = plan.output / TABLE_FILE
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    print(f"wrote {path}, {len(rows)} results")
    if figure is not None:
        try:
            differences = paired_differences(rows, FIGURE_METRIC, plan.systems)
            print(f"wrote {plot_differences(differences, FIGURE_METRIC, figure)}")
        except DataError as error:
            print(f"no figure: {error}")


if __name__ == "__main__":
    run(main)
