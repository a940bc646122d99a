"""Recommends next items for a history, with titles, scores and the behaviours on the pathway; or for everyone.

python scripts/recommend.py runs/scientific/X-RETR/seed-0 B00TNNWMXI B00IBZE2EQ -k 5
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --domain data/scientific --user 42 --figure pathway.png

# every user of a prepared domain, into one table: user_id, rank, item_id, score
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --domain data/scientific --everyone best.parquet -k 20

# zero-shot, another catalogue
python scripts/recommend.py runs/open_five/X-RETR --catalog data/scientific B00TNNWMXI

# what each behaviour does for the best item, by leaving it out
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --domain data/scientific --user 42 --why

# an item nobody has seen yet
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --texts B00TNNWMXI "glass beaker 250 ml"
"""

import argparse
import os
import sys

from accelerate import PartialState
from transformers.utils import logging as transformers_logging

from retr_hf.data.domain import PreparedDomain, load_domain
from retr_hf.data.whole_histories import whole_histories
from retr_hf.entry import at_least_one, run
from retr_hf.errors import DataError
from retr_hf.everyone import recommend_everyone, require_table
from retr_hf.model.recommender import Recommender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder, or a repository of the Hub")
    parser.add_argument("history", nargs="*", help="raw item ids, oldest first; unknown ones are told and left out")
    parser.add_argument("--texts", action="store_true", help="an id the catalogue does not hold is an item's text")
    parser.add_argument("--domain", help="prepared domain to take the histories of --user or --everyone from, whole")
    parser.add_argument("--user", nargs="+", default=[], help="raw user ids")
    parser.add_argument("--held-out", action="store_true", help="of --user: without the last item, as it is tested")
    parser.add_argument(
        "--everyone",
        metavar="FILE",
        help="write the best items for every user of --domain to a .parquet or .csv: user_id, rank, item_id, score",
    )
    parser.add_argument("--catalog", help="folder whose items are recommended (default: the model's own)")
    parser.add_argument("-k", type=at_least_one, default=10, help="how many items")
    parser.add_argument("--candidates", nargs="+", metavar="ID", help="the only items that may be recommended")
    parser.add_argument("--keep-seen", action="store_true", help="items of the history may be recommended again")
    parser.add_argument(
        "--why",
        action="store_true",
        help="tell what each behaviour does for the best item: what its log-probability loses without",
    )
    parser.add_argument("--why-item", metavar="ID", help="the same for this item, which may be any of the catalogue")
    parser.add_argument("--figure", help="PNG of the (first) history's pathway")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --everyone")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_intermixed_args()
    if sum(map(bool, (args.history, args.user, args.everyone))) != 1:
        parser.error("give item ids, or --domain and --user, or --domain and --everyone")
    if (args.user or args.everyone) and not args.domain:
        parser.error("--user and --everyone need --domain")
    if args.held_out and not args.user:
        parser.error("--held-out goes with --user")
    if (args.overwrite or args.quiet) and not args.everyone:
        parser.error("--overwrite and --quiet go with --everyone")
    if args.everyone:
        if args.texts or args.why or args.why_item or args.figure:
            parser.error("--texts, --why and --figure are of single histories: not with --everyone")
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise DataError(
                "--everyone is the work of one process: start it with python, not with a launcher of several"
            )
        require_table(args.everyone, args.overwrite)
    transformers_logging.disable_progress_bar()

    domain = load_domain(args.domain) if args.domain else None
    unknown_items = "text" if args.texts else None
    recommender = Recommender.from_pretrained(args.model, args.catalog, unknown_items)
    if recommender.placement:
        print(f"{args.model}: {recommender.placement}", file=sys.stderr)
    if args.everyone:
        answer_everyone(recommender, domain, args)
        return
    histories = user_histories(domain, args.user, args.held_out) if args.user else {"": args.history}
    tell_unknown(recommender, histories)
    answers = recommender.recommend(
        list(histories.values()), k=args.k, exclude_seen=not args.keep_seen, candidates=args.candidates
    )
    for user, answer in zip(histories, answers, strict=True):
        if user:
            print(f"user {user}")
        print(answer, end="\n\n")
        if args.why or args.why_item:
            tell_why(recommender, histories[user], answer, args.why_item)
    if args.figure:
        draw(answers[0], args.figure)


def answer_everyone(recommender: Recommender, domain: PreparedDomain, args: argparse.Namespace) -> None:
    """Writes the table, and tells what is in it and what is not."""
    answered = recommend_everyone(
        recommender.to(PartialState().device),
        domain,
        args.everyone,
        args.k,
        not args.keep_seen,
        args.candidates,
        args.overwrite,
        not args.quiet,
    )
    print(f"wrote {args.everyone}: {args.k} items at most for each of {answered.users:,} users")
    if answered.left_out:
        told = "of whose items the model knows none, or who have had all that may come"
        print(f"{answered.left_out:,} users are not in it, {told}", file=sys.stderr)
    if answered.unknown:
        told = f"with items that the model does not know were left out (--catalog {args.domain} reads the domain's)"
        print(f"{answered.unknown:,} interactions {told}", file=sys.stderr)


def user_histories(domain: PreparedDomain, users: list[str], held_out: bool = False) -> dict[str, list[str]]:
    """Raw item ids of each user, all of them or, ``held_out``, those before the test target."""
    known, rows = (domain.user_ids("test"), domain.split("test")) if held_out else whole_histories(domain)
    row_of = {user: row for row, user in enumerate(known)}
    unknown = [user for user in users if user not in row_of]
    if unknown:
        what = "test history" if held_out else "history"
        raise DataError(f"{domain.path}: no {what} of {unknown[:3]}; its first users are {list(row_of)[:3]}")
    ids = domain.catalog(embeddings=False).item_ids
    end = -1 if held_out else None
    return {user: [ids[index - 1] for index in rows[row_of[user]][:end]] for user in users}


def tell_unknown(recommender: Recommender, histories: dict[str, list[str]]) -> None:
    """Says which ids are left out of a history; where nothing remains of it, ``recommend`` refuses it."""
    if recommender.processor.unknown_items != "skip":
        return
    remedy = " (--texts reads them as texts)" if recommender.model.config.uses_text else ""
    for user, history in histories.items():
        rows = recommender.processor.catalog.index_of(history)
        unknown = [item for item, row in zip(history, rows, strict=True) if not row]
        if 0 < len(unknown) < len(history):
            some = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
            told = f"{len(unknown)} of {len(history)} ids are not in the catalogue and left out: {some}"
            print(f"user {user}: {told}" if user else told + remedy, file=sys.stderr)


def tell_why(recommender: Recommender, history: list[str], answer, item_id: str | None) -> None:
    """Each behaviour's weight for an item, the heaviest first; None is the best one of the answer."""
    if item_id is None and not answer.items:
        return  # the answer says that nothing is left
    item_id = item_id or answer.items[0].item_id
    recommender.rows_of([item_id], "--why-item")
    if len(recommender.processor.rows([history])[0][0]) < 2:
        print(f"why {item_id}: the history is one behaviour, and it alone speaks for it", end="\n\n")
        return
    reasons = recommender.why(history, item_id)
    print(f"why {item_id}: what its log-probability loses without a behaviour")
    for reason in sorted(reasons, key=lambda reason: -reason.weight):
        print(reason)
    print()


def draw(answer, path: str) -> None:
    """The pathway as a picture."""
    from retr_hf.report.plots import plot_pathway

    if not answer.items:
        raise DataError(
            "nothing is left to recommend: every item is in the history (--keep-seen recommends them again)"
        )
    if not answer.pathway:
        raise DataError("this model has no router, so there is no pathway to draw")
    keep = list(zip(*(step.keep_probabilities for step in answer.pathway), strict=True))
    route = list(zip(*(step.kept for step in answer.pathway), strict=True))
    plot_pathway([step.title for step in answer.pathway], keep, route, path, answer.items[0].title)
    print(f"pathway drawn to {path}")


if __name__ == "__main__":
    run(main)
