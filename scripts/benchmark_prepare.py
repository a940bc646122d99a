#!/usr/bin/env python
"""How long from raw ratings to a prepared domain, and in how much memory? Ours, plain pandas, UniSRec's own script.

    python scripts/benchmark_prepare.py --ratings 1000000
    git clone https://github.com/RUCAIBox/UniSRec
    python scripts/benchmark_prepare.py --ratings 1000000 --peer-path UniSRec --repeats 5 --json rows.jsonl

Writes a category of that many ratings in the shape of Amazon's Home_and_Kitchen (retr_hf/benchmark/rating_log.py) to a
temporary folder; every side reads the same files, in a process of its own, in turns. Timed is everything but the
imports; peak memory is that of the process. What each does: retr_hf/benchmark/drivers/preparing.py. "ours" samples no
negatives, as the others do not; "ours, 100 negatives" samples 100 a user, for validation and test, and writes them.
UniSRec's script needs torch, transformers and tqdm, which are here; its BERT is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from retr_hf.benchmark.drivers import preparing
from retr_hf.benchmark.memory import peak_megabytes
from retr_hf.benchmark.rating_log import write_category

OURS = "ours"
WITH_NEGATIVES = "ours, 100 negatives"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=int, default=1_000_000, help="lines of the log (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--peer-path", metavar="DIR", help="a checkout of UniSRec, to run its script too")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to write and work (default: temporary)")
    parser.add_argument("--json", metavar="FILE", help="JSON lines file that the rows are added to")
    parser.add_argument("--side", nargs=4, metavar=("NAME", "CSV", "META", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        return one_side(*args.side, args.peer_path)
    from retr_hf.benchmark.timing import ratio  # torch, which would count in a side's memory

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        files = write_category(Path(folder), args.ratings)
        sides = [OURS, WITH_NEGATIVES, "pandas", *(["unisrec"] if args.peer_path else [])]
        runs = {side: [] for side in sides}
        for n in range(args.repeats):
            for side in sides:
                runs[side].append(in_a_process(side, files, Path(folder) / f"{n}", args.peer_path))
    print(f"{args.ratings:,} ratings, medians of {args.repeats}\n")
    print(f"| {'':20} | seconds | peak MB | times as long as ours |")
    print("|---|---|---|---|")
    for side, done in runs.items():
        seconds = [one["seconds"] for one in done]
        row = {"ratings": args.ratings, "side": side, "seconds": seconds, "peak_mb": [one["peak_mb"] for one in done]}
        against = ratio([one["seconds"] for one in runs[OURS]], seconds) if side != OURS else None
        row["ratio"] = against and against._asdict()
        print(
            f"| {side:20} | {np.median(seconds):.1f} | {np.median(row['peak_mb']):,.0f} | "
            f"{'' if against is None else round(against[0], 1)} |"
        )
        if args.json:
            with open(args.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return 0


def in_a_process(side: str, files: tuple[Path, Path], output: Path, peer_path: str | None) -> dict:
    """The JSON line that a side prints last."""
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, *map(str, files), str(output / side)]
    done = subprocess.run(command + (["--peer-path", peer_path] if peer_path else []), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {side}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def one_side(name: str, csv: str, meta: str, output: str, peer_path: str | None) -> int:
    """Prepares in this process and prints what it took."""
    files = (Path(csv), Path(meta), Path(output))
    if name == "pandas":
        run = preparing.pandas(*files)
    elif name == "unisrec":
        run = preparing.unisrec(*files, peer_path)
    else:
        run = preparing.ours(*files, 100 if name == WITH_NEGATIVES else 0)
    start = time.perf_counter()
    failed = run()
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak_megabytes()}))
    return failed or 0


if __name__ == "__main__":
    sys.exit(main())
