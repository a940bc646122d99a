"""Recommends next items for a history, with titles, scores and the behaviours on the pathway.

python scripts/recommend.py runs/scientific/X-RETR/seed-0 B00TNNWMXI B00IBZE2EQ -k 5
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --domain data/scientific --user 42 --figure pathway.png

# zero-shot, another catalogue
python scripts/recommend.py runs/open_five/X-RETR --catalog data/scientific B00TNNWMXI

# what each behaviour does for the best item, by leaving it out
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --domain data/scientific --user 42 --why

# an item nobody has seen yet
python scripts/recommend.py runs/scientific/X-RETR/seed-0 --texts B00TNNWMXI "glass beaker 250 ml"
"""

import argparse
import sys

from transformers.utils import logging as transformers_logging

from retr_hf.data.domain import load_domain
from retr_hf.entry import run
from retr_hf.errors import DataError
from retr_hf.model.recommender import Recommender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder, or a repository of the Hub")
    parser.add_argument("history", nargs="*", help="raw item ids, oldest first; unknown ones are told and left out")
    parser.add_argument("--texts", action="store_true", help="an id the catalogue does not hold is an item's text")
    parser.add_argument("--domain", help="prepared domain to take the history of --user from (its test history)")
    parser.add_argument("--user", nargs="+", default=[], help="raw user ids")
    parser.add_argument("--catalog", help="folder whose items are recommended (default: the model's own)")
    parser.add_argument("-k", type=int, default=10, help="how many items")
    parser.add_argument("--candidates", nargs="+", metavar="ID", help="the only items that may be recommended")
    parser.add_argument("--keep-seen", action="store_true", help="items of the history may be recommended again")
    parser.add_argument(
        "--why",
        nargs="?",
        const=True,
        metavar="ID",
        help="tell what each behaviour does for the best item, or for this one: what its log-probability loses without",
    )
    parser.add_argument("--figure", help="PNG of the (first) history's pathway")
    args = parser.parse_intermixed_args()
    if bool(args.history) == bool(args.user):
        parser.error("give item ids, or --domain and --user")
    if args.user and not args.domain:
        parser.error("--user needs --domain")
    transformers_logging.disable_progress_bar()

    unknown_items = "text" if args.texts else None
    recommender = Recommender.from_pretrained(args.model, args.catalog, unknown_items)
    if recommender.placement:
        print(f"{args.model}: {recommender.placement}", file=sys.stderr)
    histories = user_histories(args.domain, args.user) if args.user else {"": args.history}
    tell_unknown(recommender, histories)
    answers = recommender.recommend(
        list(histories.values()), k=args.k, exclude_seen=not args.keep_seen, candidates=args.candidates
    )
    for user, answer in zip(histories, answers, strict=True):
        if user:
            print(f"user {user}")
        print(answer, end="\n\n")
        if args.why:
            tell_why(recommender, histories[user], answer, None if args.why is True else args.why)
    if args.figure:
        draw(answers[0], args.figure)


def user_histories(domain_folder: str, users: list[str]) -> dict[str, list[str]]:
    """Raw item ids each user had before the test target."""
    domain = load_domain(domain_folder)
    row_of = {user: row for row, user in enumerate(domain.user_ids("test"))}
    unknown = [user for user in users if user not in row_of]
    if unknown:
        raise DataError(f"{domain_folder}: no test history of {unknown[:3]}; its first users are {list(row_of)[:3]}")
    ids, test = domain.catalog(embeddings=False).item_ids, domain.split("test")
    return {user: [ids[index - 1] for index in test[row_of[user]][:-1]] for user in users}


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
