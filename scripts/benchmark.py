"""How fast are we, against what? One table of ratios, each pair of a line timed in turns in one run.

    python scripts/benchmark.py                                          # all cases on both synthetic shapes
    python scripts/benchmark.py --case training,ranking --repeats 9      # some of them, by name or by its beginning
    python scripts/benchmark.py --data data/scientific --json rows.jsonl # the histories of a prepared domain
    python scripts/benchmark.py --against recbole --peer-python ~/envs/recbole/bin/python
    python scripts/benchmark.py --against sasrec-pytorch --peer-path SASRec.pytorch/python

"plain" is the same model with the same weights written as a paper prints it: histories padded to N, every product over
the padding too, torch's dropout, item texts adapted once an occurrence, all logits at once
(retr_hf/benchmark/plain.py). A ratio above 1 says how many times faster ours is; two figures in a cell are ours / the
other's. Tokens are real items, no padding. "of the limit": the operations that a step needs
(retr_hf/benchmark/arithmetic.py) a second, over what a product of two 2048 x 2048 matrices reached in the same run.
Peak memory is that of a process of its own for each side.

Both sides have the same environment. Where a machine is shared with others, OMP_WAIT_POLICY=PASSIVE keeps waiting
threads from taking the processor; glibc's MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
MALLOC_TOP_PAD_=500000000 keeps memory that is needed again. The last line says which are set.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from retr_hf.benchmark.cases import CASES, Setting
from retr_hf.benchmark.measure import machine, measure, table
from retr_hf.benchmark.peers import PEERS, measure_against
from retr_hf.benchmark.workload import SHAPES, Source, Workload, open_workload
from retr_hf.errors import DataError, RetrError
from retr_hf.report.results import environment
from retr_hf.training.fields import nearest


def main(arguments: list[str] | None = None) -> int:
    args = command_line(arguments)
    transformers_logging.disable_progress_bar()
    rows: list[dict] = []
    try:
        bar = tqdm(plan(args), unit="case", disable=args.quiet)
        for what, make in bar:
            bar.set_description(what)
            row = make() | {"machine": machine(), **environment()}
            rows.append(row)
            if args.json:
                with open(args.json, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    except RetrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was measured so far:", file=sys.stderr)
        return 130
    finally:
        if rows:
            print(table(rows))
            print(footnote(rows))
    return 0


def command_line(arguments: list[str] | None) -> argparse.Namespace:
    cases = "\n".join(f"  {name:<17} {case.about}; against {case.other}" for name, case in CASES.items())
    peers = "\n".join(f"  {name:<17} {', '.join(peer.cases)}; {peer.install}" for name, peer in PEERS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"cases:\n{cases}\n\npeers (--against), their cases, and how to install them:\n{peers}",
    )
    parser.add_argument("--case", help="cases, separated by commas; the part before a dash names all of its kind")
    parser.add_argument("--shape", help=f"synthetic shapes, separated by commas (default: {','.join(SHAPES)})")
    parser.add_argument("--data", nargs="+", metavar="FOLDER", help="prepared domains instead of synthetic shapes")
    parser.add_argument(
        "--length", type=int, metavar="N", help="items of a history that are read (default: the shape's; 50)"
    )
    parser.add_argument("--batch-size", type=int, help="histories a step (default: the shape's; 512)")
    parser.add_argument("--users", type=int, default=2048, help="histories drawn, at most (default: %(default)s)")
    parser.add_argument("--d", type=int, default=256, help="width of the model and of its feed-forward layers")
    parser.add_argument("--router", choices=("pathway", "none"), help="default: pathway; against a peer: none")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions of each side (default: %(default)s)")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, which starts processes")
    parser.add_argument("--against", metavar="PEER", help="ours against another toolkit: " + ", ".join(PEERS))
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter the peer is installed in")
    parser.add_argument("--peer-path", help="the checkout of a peer that is no package")
    parser.add_argument(
        "--steps", type=int, default=4, help="against a peer: steps timed a process (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="JSON lines file that the rows are added to")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(arguments)
    if args.data and args.shape:
        parser.error("--data and --shape: expected one of them")
    if args.d % Setting.heads:
        parser.error(f"--d: expected a multiple of {Setting.heads}, the number of heads, came {args.d}")
    for name in ("length", "batch_size", "users", "d", "repeats", "steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, came {value}")
    return args


def plan(args: argparse.Namespace) -> list[tuple[str, Callable[[], dict]]]:
    """What is to be measured, a name and a function each, checked as far as can be seen before the first one runs."""
    if args.against is not None:
        peer, *more = chosen(args.against, tuple(PEERS), "peer")
        if more:
            raise DataError(f"--against {args.against}: expected one peer, it has an interpreter of its own")
        known, router = PEERS[peer].cases, args.router or "none"
    else:
        known, router = tuple(CASES), args.router or "pathway"
    cases = chosen(args.case, known, "case" if args.against is None else f"case of {args.against}")
    setting = Setting(hidden_size=args.d, inner=args.d, router=router)
    steps = []
    for name in args.data or chosen(args.shape, tuple(SHAPES), "shape"):
        source = Source(name, args.users, args.length, args.batch_size)
        workload = open_workload(source)
        for case in cases:
            make = partial(measure, source, case, setting, args.repeats, not args.no_memory)
            if args.against is not None:
                make = partial(
                    measure_against,
                    peer,
                    case,
                    source,
                    setting,
                    script=Path(__file__).with_name("benchmark_peers.py"),
                    python=os.path.expanduser(args.peer_python),
                    path=args.peer_path,
                    repeats=args.repeats,
                    steps=args.steps,
                )
            elif problem := missing(case, workload):
                if args.case is not None:
                    raise DataError(problem)
                print(f"left out: {case}: {problem}", file=sys.stderr)
                continue
            steps.append((f"{case}, {workload.name}", make))
    return steps


def missing(case: str, workload: Workload) -> str | None:
    """Why a case cannot read a workload, or None."""
    try:
        CASES[case].check(workload)
    except DataError as error:
        return str(error)
    return None


def chosen(names: str | None, known: tuple[str, ...], what: str) -> list[str]:
    """Names separated by commas, or their beginnings before a dash; None means all."""
    if names is None:
        return list(known)
    found = []
    for name in names.split(","):
        own = [one for one in known if one == name or one.split("-")[0] == name]
        if not own:
            near = nearest(name, known)
            hint = f"did you mean {near}? " if near else ""
            raise DataError(f"unknown {what} {name!r}: {hint}expected some of {', '.join(known)}")
        found += [one for one in own if one not in found]
    return found


def footnote(rows: list[dict]) -> str:
    """What the table's figures hold for."""
    row, about = rows[0], rows[0]["machine"]
    setting = row["setting"]
    variables = " ".join(f"{name}={value}" for name, value in about["environment"].items())
    limits = [one["gflops"] for one in rows if "gflops" in one]
    limit = f"limit {min(limits):.0f}-{max(limits):.0f} GFLOP/s; " if limits else ""
    few = "" if row["repeats"] >= 5 else " (fewer than 5: not for quoting)"
    return (
        f"\nMedians of {row['repeats']} alternating repetitions{few}; d={setting['hidden_size']}, "
        f"{setting['layers']} blocks, {setting['heads']} heads, dropout {setting['dropout']}, router "
        f"{setting['router']}; {limit}{about['processor']}, {about['cores']} cores, {about['threads']} threads, "
        f"torch {row['versions']['torch']}, {row['date'][:10]}, commit {row['commit']}; "
        + (variables or "no OMP_ and no MALLOC_ variable set")
    )


if __name__ == "__main__":
    sys.exit(main())
