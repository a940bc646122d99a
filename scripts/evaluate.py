"""Ranks a model, or an untrained baseline, on a prepared domain.

    python scripts/evaluate.py runs/scientific/X-RETR/seed-0 data/scientific
    python scripts/evaluate.py runs/open_five/X-RETR data/scientific --name zero-shot --results runs/rows.jsonl
    python scripts/evaluate.py --baseline popularity data/scientific
    python scripts/evaluate.py runs/scientific/X-RETR/seed-0 data/scientific --against popularity  # or another model
    python scripts/evaluate.py runs/scientific/X-RETR/seed-0 data/scientific --routes routes.png  # which it keeps
    accelerate launch --num_processes 4 scripts/evaluate.py runs/scientific/X-RETR/seed-0 data/scientific

A model of texts alone ranks any domain embedded by its encoder: without fine-tuning that is zero-shot.
"""

import argparse
import json
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
from accelerate import Accelerator, PartialState
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from retr_hf.baselines.poprec import poprec
from retr_hf.baselines.recguru import RecGuru, RecGuruConfig
from retr_hf.baselines.text_similarity import text_similarity
from retr_hf.data.domain import PreparedDomain, load_domain
from retr_hf.entry import at_least_one, run
from retr_hf.errors import DataError
from retr_hf.evaluation.histories import histories_of
from retr_hf.evaluation.metrics import user_differences
from retr_hf.evaluation.ranking import full_ranks, sampled_ranks
from retr_hf.measuring import print_metrics, ranks_of_split, require_splits, result_rows
from retr_hf.model.head_retr import RetrHead
from retr_hf.model.hub import local_folder
from retr_hf.model.other_catalog import Placement, place_items
from retr_hf.model.processing_retr import check_catalog
from retr_hf.model.recommender import open_model
from retr_hf.model.text_whitening import text_table
from retr_hf.report.plots import require_png
from retr_hf.report.results import append_rows, require_room
from retr_hf.report.route_plot import plot_routes
from retr_hf.route_look import OWN, look_at_routes, require_router
from retr_hf.training.run_folder import RUN_FILE, KnownTests
from retr_hf.training.settings import EvaluationSettings

BASELINES = ("popularity", "text-similarity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model folder; left out with --baseline")
    parser.add_argument("domain", nargs="+", help="prepared domains")
    parser.add_argument("--baseline", choices=BASELINES, help="an untrained reference instead of a model")
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="another model folder, or a baseline: print the difference user by user, with its 95 %% interval",
    )
    parser.add_argument(
        "--routes",
        type=Path,
        metavar="FILE.png",
        help="draw and print which behaviours the router keeps, by how often their item was bought and by age, and how "
        "ranking changes with all kept, none, or as many but by chance (--results: rows of these too)",
    )
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--cutoffs", type=at_least_one, nargs="+", default=[10, 50], help="k of HR@k and NDCG@k")
    parser.add_argument("--batch-size", type=at_least_one, default=512)
    parser.add_argument("--name", help="system name in the result row (default: the run's or the baseline's)")
    parser.add_argument("--sources", nargs="*", help="domains the model was pre-trained on, if its folder does not say")
    parser.add_argument("--results", help="JSON lines file that the rows are added to")
    args = parser.parse_intermixed_args()
    transformers_logging.disable_progress_bar()
    if args.baseline and args.model:
        args.domain.insert(0, args.model)
    elif not args.baseline and not args.model:
        parser.error("name a model folder, or a --baseline")

    if args.routes and len(args.domain) > 1:
        parser.error(f"--routes is one picture of one domain: got {len(args.domain)} domains")
    if args.results:
        require_room(args.results)
    if args.routes:
        require_png(args.routes)
        args.routes.parent.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    settings = EvaluationSettings(cutoffs=args.cutoffs, batch_size=args.batch_size)
    domains = [load_domain(path) for path in args.domain]
    for domain in domains:  # of all of them before the first row is written
        require_splits(domain, args.split)
        if (args.against or args.routes) and len(domain.split(args.split)) < 2:
            raise DataError(
                f"{domain.path}: --against and --routes compare user by user and need two, {args.split} has one"
            )
        for folder in (args.model if not args.baseline else None, args.against):
            if folder not in (None, *BASELINES):
                known = KnownTests(local_folder(folder))
                if refusal := known.refusal(domain.name):
                    raise DataError(refusal)
                if warning := known.warning(domain.name):
                    accelerator.print(warning, file=sys.stderr)
    model = args.baseline or open_any(args.model).to(accelerator.device)
    if args.routes:
        require_router(model)
    other = args.against
    if other not in (None, *BASELINES):
        other = open_any(other).to(accelerator.device)
    for domain in domains:
        if args.baseline:
            about = {"recipe": "scripts/evaluate.py", "system": args.baseline, "sources": [], "seed": 0}
        else:
            about = about_model(args, domain.name)
        placed, found = on_domain(model, domain)
        ranks = ranks_of(placed, domain, args.split, settings)
        about |= {"system": args.name} if args.name else {}
        about |= {"settings": {"id vectors": str(found)}} if found else {}
        rows = result_rows(ranks, domain, args.cutoffs, split=args.split, **about)
        others = None  # before a row is written
        if other is not None:
            others = ranks_of(on_domain(other, domain)[0], domain, args.split, settings)
        routes = look_at_routes(placed, domain, args.split, settings) if args.routes else None
        if accelerator.is_main_process:
            own = {row.protocol: ranks[row.protocol] for row in rows}
            print_metrics(f"{about['system']} on {domain.name}, {args.split}", rows)
            if others is not None:
                print_differences(args.against, own, others, args.cutoffs)
            if routes is not None:
                print(routes.text(own, args.cutoffs))
                for name, values in {OWN: own, **routes.ranks}.items():
                    named = about | {"system": f"{about['system']}, routes: {name}"}
                    named["settings"] = about.get("settings", {}) | routes.settings(name)
                    rows += result_rows(values, domain, args.cutoffs, split=args.split, **named)
            if args.results:
                append_rows(args.results, rows)
            if routes is not None:
                plot_routes(routes.parts, args.routes, f"{about['system']} on {domain.name}")
                print(f"wrote {args.routes}", file=sys.stderr)
    accelerator.end_training()


def open_any(folder: str) -> PreTrainedModel:
    """RETR's recommendation head or, where the folder's config.json says so, RecGURU."""
    config = local_folder(folder) / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    return RecGuru.from_pretrained(folder) if kind == RecGuruConfig.model_type else open_model(folder)


def about_model(args, domain: str) -> dict:
    """What the result row says of a model: its run's name, recipe and seed, and what else it was trained on."""
    run_file = local_folder(args.model) / RUN_FILE
    ran = json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}
    # Fine-tuned on this very domain, its sources are those before; on another one, that one is a source too.
    before, trained_on = ran.get("sources"), ran.get("trained_on", [])
    known = before if trained_on == [*(before or []), domain] else ran.get("trained_on")
    sources = args.sources if args.sources is not None else known
    if sources is None:
        raise DataError(
            f"{args.model}: no {RUN_FILE} that tells what it was pre-trained on: say it with --sources (nothing: none)"
        )
    return {
        "recipe": ran.get("recipe", "scripts/evaluate.py"),
        "system": ran.get("name", Path(args.model).name),
        "sources": sources,
        "seed": ran.get("seed", 0),
        "init": ran.get("init"),
        "model": args.model,
    }


def ranks_of(model, domain: PreparedDomain, split: str, settings) -> dict[str, np.ndarray]:
    """Ranks by protocol of a model, or of a baseline by its name."""
    if isinstance(model, str):
        return baseline_ranks(model, domain, split)
    return model_ranks(model, domain, split, settings)


def on_domain(model, domain: PreparedDomain) -> tuple[PreTrainedModel | str, Placement | None]:
    """A model, or a baseline's name, for a domain: where that has another catalogue than the model's ids, a copy whose
    id vectors follow the raw ids, and where they stand."""
    catalog = domain.catalog(embeddings=False)
    if not isinstance(model, RetrHead) or model.config.catalog_hash in (None, catalog.hash):
        return model, None
    placed = deepcopy(model)  # the next domain is placed from the model's own items
    found = place_items(placed, model.name_or_path, catalog)
    PartialState().print(f"{model.name_or_path} on {domain.name}: {found}", file=sys.stderr)
    return placed, found


def print_differences(other: str, ranks: dict[str, np.ndarray], others: dict[str, np.ndarray], cutoffs) -> None:
    """One line a protocol: the first system minus the other."""
    print(f"  minus {other}, the same users, with the 95 % interval over users")
    for protocol, values in ranks.items():
        told = "  ".join(f"{name} {each}" for name, each in user_differences(values, others[protocol], cutoffs).items())
        better, worse = (values < others[protocol]).sum(), (values > others[protocol]).sum()
        print(f"  {protocol:<12} {told}  (ranked higher for {better:,} users, lower for {worse:,})")


def model_ranks(model, domain: PreparedDomain, split: str, settings) -> dict[str, np.ndarray]:
    """Ranks of a model; refuses a catalogue it cannot read."""
    catalog = domain.catalog()
    check_catalog(model.config, catalog)
    text = text_table(model.config, catalog)
    return ranks_of_split(model, domain, split, text, settings, model.config.max_position_embeddings)


def baseline_ranks(name: str, domain: PreparedDomain, split: str) -> dict[str, np.ndarray]:
    """Ranks of an untrained reference."""
    sequences, negatives = domain.split(split), domain.negatives(split)
    ends = sequences.offsets[1:]
    if name == "popularity":
        queries, items = poprec(domain.split("train").item_ids, domain.num_items, len(sequences))
    else:
        last = np.where(sequences.lengths > 1, sequences.item_ids[np.maximum(ends - 2, 0)], 0)
        queries, items = text_similarity(domain.catalog().item_table(), last)
    targets = sequences.item_ids[ends - 1].astype(np.int64)
    seen = histories_of(sequences, np.arange(len(sequences)))
    stored = (negatives.item_ids.astype(np.int64), negatives.offsets)
    return full_ranks(queries, items, targets, seen) | sampled_ranks(queries, items, targets, stored)


if __name__ == "__main__":
    run(main)
