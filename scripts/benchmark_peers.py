"""Trains or ranks with one toolkit on given histories and prints what it took as a line of JSON.

    python scripts/benchmark.py --against recbole --peer-python ~/envs/recbole/bin/python      # starts this, in turns
    ~/envs/recbole/bin/python scripts/benchmark_peers.py recbole histories.npz --task ranking  # alone

Runs in the toolkit's own environment, which needs nothing of ours. histories.npz holds item_ids [total] (1-based),
offsets [users + 1], num_items, and text [num_items + 1, T] where items are read by text. Every toolkit trains on a
history without its last two items and ranks the last one given all before it.

Timed are whole steps as the toolkit's own loop does them: loading, collation, forward, backward, optimiser and what the
loop keeps account of; not imports, preparation of the data, warm-up, validation and checkpoints. Ranking is timed as a
whole, metrics included, without warm-up. tokens: items that the encoder reads, padding excluded; targets: terms of the
loss that count. peak_mb: most resident memory of the process, preparation included (of sasrec-pytorch without its
sampling processes).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import warnings

DRIVERS = {"retr_hf": "ours", "recbole": "recbole", "replay": "replay", "sasrec-pytorch": "sasrec_pytorch",
           "unisrec": "unisrec"}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("toolkit", choices=sorted(DRIVERS))
    parser.add_argument("histories", help="an .npz file")
    parser.add_argument("--task", choices=("training", "ranking"), default="training")
    parser.add_argument("--loss", choices=("softmax", "bce"), default="softmax", help="over all items, or one negative")
    parser.add_argument("--max-length", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--inner", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--router", default="none", help="of retr_hf")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those that are timed")
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed")
    parser.add_argument("--path", help="checkout of a toolkit that is no package")
    options = parser.parse_args()
    options.start = os.getcwd()
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    warnings.filterwarnings("ignore")

    import numpy as np

    from retr_hf.benchmark.drivers.clock import NOT_IMPORTABLE, Given
    from retr_hf.benchmark.memory import peak_megabytes

    with np.load(options.histories) as file:
        bounds = file["offsets"].tolist()
        rows = [file["item_ids"][start:stop].tolist() for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
        given = Given(rows, int(file["num_items"]), file["text"] if "text" in file else None)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # some write their logs where they run
        try:
            result = importlib.import_module(f"retr_hf.benchmark.drivers.{DRIVERS[options.toolkit]}").run(
                options, given
            )
        except ImportError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return NOT_IMPORTABLE
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            os.chdir(options.start)
    print("\n" + json.dumps({"peak_mb": peak_megabytes(), **result}), flush=True)
    return 0


if __name__ == "__main__":
    # The files of this folder would hide packages of their names; those of the one above are ours.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(main())
