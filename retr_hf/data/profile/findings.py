"""What in a domain will hurt: each finding with its figures, an example, and what to do about it.

A warning is a fault of the data, or something that makes results mean less than they seem. A note is how the data is,
where a choice depends on it. Every threshold says why it is where it is; a finding is made from the threshold on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..schema import TEST, VALIDATION
from .domain_profile import DomainProfile
from .near_texts import NEAR
from .part import Part
from .times import TimeProfile

WARNING, NOTE = "warning", "note"

IDENTICAL = 0.001  # of interactions: people do not act twice a second, so more than a few is a log read twice
SAME_AGAIN = 0.05  # of steps: "the same again", a rule without a model, then reaches HR@1 0.05
TWINS = 0.01  # of users: chance gives a few among short histories; a hundredth is an export with doubled accounts
HEAVY_USER, HEAVY_TIMES = 0.01, 100  # of interactions, and times the median: a shop's own account or a crawler
NO_TARGET = 0.2  # of training rows: a fifth of the users teach nothing, so that counts of users mislead
HEAD = 0.5  # of interactions on 1 % of the items: the majority; metrics then tell who ranks the bestsellers
TOP = 0.2  # of targets: popularity then reaches HR@10 0.2, more than any system is said to on Scientific (0.146)
UNEVEN = 3  # times what equal items would give: the ten of a shop of 30 items are a third of it, its top item 3 %
COLD = 0.05  # of targets: models of item ids lose them all; at HR@10 = 0.1 a text model gains a twentieth for nothing
FEW_TARGETS = 1000  # at HR@10 = 0.1 the 95 % interval of 1,000 users is +- 0.019: wider than most claimed gains
MISSING = 0.01  # of items or of interactions: one target in a hundred that text cannot find
SAME_TEXT = 0.05  # of items: text alone ranks them by chance among themselves, so it cannot reach HR 1
NEAR_TEXT = 0.2  # of items: variants (colour, size) are usual in shops; from a fifth on they shape the metrics
LONG_TEXT = 0.05  # of items: the encoder does not read the ends
CUT = 0.2  # of interactions, at max_length 50: a fifth of what was paid for is not read
TIED = 0.2  # of steps: order within a tie is the file's, and models of order learn it
OFTEN_SEEN, SELDOM_SEEN = 0.05, 0.01  # of targets: `full` and `full-unseen` differ by more; by hardly anything


@dataclass(frozen=True)
class Finding:
    """kind: stable name; level: WARNING or NOTE; what: one sentence with figures; examples: of ids; remedy."""

    kind: str
    level: str
    what: str
    remedy: str
    examples: tuple[str, ...] = ()


def findings(profile: DomainProfile) -> list[Finding]:
    """What is to be said of a domain, warnings first; nothing for a domain without fault."""
    found = [finding for look in _LOOKS for finding in look(profile)]
    return sorted(found, key=lambda finding: finding.level != WARNING)


def advice_on_seen_items(profile: DomainProfile) -> str:
    """Whether items of the own history are to be recommended, by how many targets stand there: one sentence."""
    if not any(part.whole for part in profile.targets.seen.values()):
        return "no row is evaluated, so that nothing tells whether seen items come back"
    seen = _targets(profile, profile.targets.seen)
    if seen >= OFTEN_SEEN:
        return "keep seen items: rank with protocol full, and let the model learn repeats (model.repeat_term)"
    if seen < SELDOM_SEEN:
        return "leave seen items out: rank with protocol full-unseen, recommend with exclude_seen"
    return "seen items matter a little: report both full and full-unseen"


def _histories(profile: DomainProfile) -> Iterator[Finding]:
    histories = profile.histories
    if histories.by_day:
        yield Finding(
            "dates-without-time",
            WARNING,
            "all times are dates: what a user did on one day is in the order of the file, the target perhaps among it",
            "give the time of day too if the log has it; otherwise see that the file is in order",
        )
    if histories.identical and histories.identical.share >= IDENTICAL:
        yield Finding(
            "identical-interactions",
            WARNING,
            f"{histories.identical} interactions have the same user, item and "
            f"{'day' if histories.by_day else 'second'} as another",
            ("where the log was written twice, " if histories.by_day else "")
            + "drop them: prepare.py READER --duplicates identical, or make the log's rows unique first",
            tuple(histories.examples["identical"]),
        )
    if histories.same_again.share >= SAME_AGAIN:
        yield Finding(
            "same-item-again",
            WARNING,
            f"{histories.same_again} steps of histories go to the very same item; it is the target of "
            f"{profile.targets.last[TEST]} test rows",
            "if one act was logged several times: prepare.py READER --duplicates consecutive; if people do buy again, "
            "keep it and report the baseline that repeats the last item",
            tuple(histories.examples["same_again"]),
        )
    if histories.twins.share >= TWINS:
        yield Finding(
            "doubled-users",
            WARNING,
            f"{histories.twins} users with five or more interactions have exactly another user's history",
            "look for accounts or files that were counted twice; keep one of each, else test users stand in training",
            tuple(histories.examples["twins"]),
        )
    user, longest = histories.longest
    if longest.share >= HEAVY_USER and longest.count >= HEAVY_TIMES * histories.median:
        yield Finding(
            "heavy-user",
            WARNING,
            f"one user has {longest} interactions; the median user has {histories.median:g}",
            "is it a person? Drop a crawler's, a test's or the shop's own account from the log",
            (user,),
        )
    if histories.without_target.share >= NO_TARGET:
        yield Finding(
            "nothing-to-train",
            WARNING,
            f"{histories.without_target} training rows hold one item, which is history without a target",
            "prepare with a higher --k-core, so that a user has at least four interactions",
        )
    if histories.cut_events[50].share >= CUT:
        cut = histories.cut_events
        yield Finding(
            "cut-histories",
            NOTE,
            f"a model with max_length 50 never reads {cut[50]} interactions; with 100 it is {cut[100].percent}, "
            f"with 200 {cut[200].percent}",
            "train with data.max_length=200 if memory allows, or with data.window=random: all parts in turn",
        )


def _popularity(profile: DomainProfile) -> Iterator[Finding]:
    popularity = profile.popularity
    if _uneven(popularity.head, HEAD, popularity.head_items) or _uneven(popularity.top, TOP, popularity.top_items):
        reached = f"the target of {popularity.top} test and validation rows"
        yield Finding(
            "popularity-collapse",
            WARNING,
            f"{popularity.head} interactions fall on the most popular items, {popularity.head_items}, and the "
            f"{popularity.top_items.count} most frequent items of training are {reached}",
            "put the popularity baseline beside every result (evaluate.py --baseline popularity), and ask whether the "
            "head is a default, a bundle or a campaign that should be dropped",
            tuple(popularity.examples),
        )


def _splits(profile: DomainProfile) -> Iterator[Finding]:
    targets = profile.targets
    if not targets.rows[TEST]:
        yield Finding(
            "no-test-rows",
            WARNING,
            f"no user has a test row, so that nothing can be measured here; the longest history has "
            f"{profile.histories.longest[1].count:,} interactions",
            "users need three items: prepare with a lower --k-core, which leaves them more, or take a longer log",
        )
        return
    if max(targets.cold[VALIDATION].share, targets.cold[TEST].share) >= COLD:
        yield Finding(
            "items-only-in-test",
            WARNING,
            f"the target is in no training row for {targets.cold[TEST]} test and {targets.cold[VALIDATION]} validation "
            f"rows, {targets.cold_items:,} items",
            "models of item ids cannot find them, so that a text model wins that much for free: say so beside the "
            "results, or prepare with a higher --k-core",
            tuple(targets.examples["cold"]),
        )
    if targets.rows[TEST] < FEW_TARGETS:
        yield Finding(
            "few-test-rows",
            WARNING,
            f"{targets.rows[TEST]:,} test rows: at HR@10 = 0.1 the 95 % interval is "
            f"± {1.96 * (0.1 * 0.9 / targets.rows[TEST]) ** 0.5:.3f}, over users alone",
            "compare systems user by user (evaluate.py MODEL DOMAIN --against OTHER) and over several seeds, and call "
            "no small gain one",
        )
    seen = _targets(profile, targets.seen)
    if seen >= OFTEN_SEEN:
        yield Finding(
            "targets-seen-before",
            NOTE,
            f"the target stands in its own history for {targets.seen[TEST]} test and {targets.seen[VALIDATION]} "
            "validation rows",
            advice_on_seen_items(profile),
            tuple(targets.examples["seen"]),
        )


def _times(profile: DomainProfile) -> Iterator[Finding]:
    times = profile.times
    if times is None:
        return
    if times.impossible.count:
        yield Finding(
            "impossible-times",
            WARNING,
            f"{times.impossible} times are before 1990 or after 2099",
            _unit_of_times(times) + "drop rows whose time is a placeholder; a mere counter may stay, it orders too",
            tuple(times.examples["impossible"]),
        )
    if times.unordered.count:
        yield Finding(
            "not-in-order",
            WARNING,
            f"{times.unordered} steps of histories go back in time",
            "sort each history by time before it is prepared; models read it as it stands",
            tuple(times.examples["unordered"]),
        )
    if times.tied.share >= TIED:
        yield Finding(
            "tied-times",
            WARNING,
            f"{times.tied} steps of histories take no time at all, so that their order is the file's",
            "take a finer time if the source has one; else say that the order within a tie is arbitrary, and do not "
            "read much into the last item",
        )
    if times.leaking.count:
        yield Finding(
            "future-in-training",
            NOTE,
            f"{times.leaking} training interactions are not before the first target, and {times.after_median} "
            "not before half of the test targets: other users' future is trained on",
            "usual for leave-one-out and comparable with the papers; prepare with --split global-time to know how a "
            "model would do in use",
        )


def _unit_of_times(times: TimeProfile) -> str:
    if not times.fitting:
        return ""
    return (
        f"the log's numbers were read as {times.read_as}, and as {times.fitting} these would be possible: where they "
        f"are most, prepare again with --timestamp-unit {times.fitting}; else "
    )


def _texts(profile: DomainProfile) -> Iterator[Finding]:
    texts = profile.texts
    if not texts.missing.count < texts.missing.whole:
        yield Finding(
            "text-missing",
            WARNING,
            f"none of the {texts.missing.whole:,} items has a text",
            "models that read text cannot be used (only item_features=id): prepare again with --items FILE",
        )
    elif texts.missing.share >= MISSING or texts.missing_events.share >= MISSING:
        yield Finding(
            "text-missing",
            WARNING,
            f"{texts.missing} items have no text, {texts.missing_events.percent} of the interactions are theirs",
            "complete the item table, or prepare READER --with-metadata, which drops them; to a model that reads text "
            "they are all the same item",
            tuple(texts.examples["missing"]),
        )
    if texts.same.share >= SAME_TEXT:
        yield Finding(
            "same-text",
            WARNING,
            f"{texts.same} items with a text share it with another, without regard to case and punctuation: "
            f"{texts.groups:,} texts, the most frequent of {texts.largest:,} items",
            "give the text more columns (--text-columns title brand category), or merge items that are one; else train "
            "with item ids too (item_features text+id)",
            tuple(texts.examples["same"]),
        )
    if texts.near.share >= NEAR_TEXT:
        yield Finding(
            "near-duplicate-texts",
            WARNING,
            f"{texts.near} items asked are nearly another: cosine at least {NEAR} of centred vectors "
            f"({texts.vectors}), the very same texts not counted",
            "variants of a product? Give each the parent's id (Amazon 2023: parent_asin); else train with item ids too "
            "(item_features text+id), since text hardly tells them apart",
            tuple(texts.examples["near"]),
        )
    if texts.long.share >= LONG_TEXT:
        yield Finding(
            "long-texts",
            NOTE,
            f"{texts.long} texts are longer than 256 words, which all-MiniLM-L6-v2 does not read to the end",
            "put what matters first (--text-columns title brand description), or embed with an encoder that reads more",
        )


def _uneven(share: Part, threshold: float, items: Part) -> bool:
    """Whether ``items`` have more than ``threshold`` of all, and several times what is theirs in any catalogue."""
    return share.share >= max(threshold, UNEVEN * items.share)


def _targets(profile: DomainProfile, parts: dict) -> float:
    """Share over validation and test together."""
    return sum(part.count for part in parts.values()) / max(1, sum(part.whole for part in parts.values()))


_LOOKS: tuple[Callable[[DomainProfile], Iterator[Finding]], ...] = (_histories, _popularity, _splits, _times, _texts)
