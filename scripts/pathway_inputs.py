"""Makes domains of what is on the pathway of a trained RETR, and of what is off it, to train on anew.

    python scripts/pathway_inputs.py runs/intra/beauty/RETR/seed-0 --domain data/beauty --output data/pathway
    python scripts/grid.py recipes/grids/pathway_inputs.yaml          # RETR and SASRec on each of the five

Opens a model folder with a causal pathway router and the domain it was trained on; leaves the prepared domains
OUTPUT/NAME-whole, -pathway, -off-pathway, -random and -off-random (as many behaviours, chosen by chance), of the same
items, evaluated users, targets and candidates. Each appears whole or not at all; the same command again finds them up
to date. Item vectors are not copied: for models of texts run scripts/embed.py on them.
"""

import argparse
import sys
from pathlib import Path

from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from retr_hf.data.domain import load_domain
from retr_hf.entry import run
from retr_hf.model.hub import local_folder
from retr_hf.model.other_catalog import place_items
from retr_hf.model.recommender import open_model
from retr_hf.pathway_inputs import write_pathway_inputs
from retr_hf.report.dataset_statistics import statistics_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder, or a repository of the Hub")
    parser.add_argument("--domain", required=True, help="the prepared domain whose histories are routed")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make the domains in")
    parser.add_argument("--block", type=int, metavar="N", help="whose route is the pathway, from 1 (default: the last)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice by chance (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace prepared domains of these names")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()

    weights, domain = Path(local_folder(args.model)), load_domain(args.domain)
    model = open_model(weights).to(Accelerator().device)
    if found := place_items(model, weights, domain.catalog(embeddings=False)):
        print(f"{args.model}: {found}", file=sys.stderr)
    folders = write_pathway_inputs(model, weights, domain, args.output, args.block, args.seed, args.overwrite)
    made = [load_domain(folder) for folder in folders.values()]
    print(statistics_table({each.name: each.statistics for each in made}))
    for name, count in made[1].provenance["dropped"].items():
        print(f"{made[1].name}: {count:,} {name.replace('_', ' ')}")


if __name__ == "__main__":
    run(main)
