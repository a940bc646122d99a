"""The numbers of a look at a domain in words: for the terminal, the page and the table that compares domains."""

import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 110  # letters of a line


def facts(profile: Any) -> dict[str, str]:
    """What -> how much; the same keys, in the same order, for every domain.

    profile: ``data.profile.domain_profile.DomainProfile``.
    """
    histories, popularity, targets, texts = profile.histories, profile.popularity, profile.targets, profile.texts
    times, total = profile.times, int((histories.lengths * histories.users).sum())
    users = int(histories.users.sum())
    _, longest = histories.longest
    head = f"{popularity.head.percent} ({popularity.head_items.percent} of items)"
    return {
        "users": f"{users:,}",
        "items": f"{popularity.untouched.whole:,}",
        "interactions": f"{total:,}",
        "median / mean history": f"{histories.median:g} / {total / users:.1f}",
        "longest history": f"{longest.count:,}",
        **{f"cut off by max_length {limit}": cut.percent for limit, cut in histories.cut_events.items()},
        "steps to the same item": histories.same_again.percent,
        "Gini of popularity": f"{popularity.gini:.2f}",
        "interactions on the most popular items": head,
        "targets in training's top ten": popularity.top.percent,
        **{f"{split} rows": f"{rows:,}" for split, rows in targets.rows.items()},
        "test targets not in training": targets.cold["test"].percent,
        "items not in training": f"{targets.untrained.count:,} ({targets.untrained.percent})",
        "test targets in their own history": targets.seen["test"].percent,
        "first time": _day(times.first) if times else "none",
        "last time": _day(times.last) if times else "none",
        "training not before the first target": times.leaking.percent if times else "-",
        "steps that take no time": times.tied.percent if times else "-",
        "items without text": texts.missing.percent,
        "median words of a text": f"{_median(texts.words, texts.items):g}" if len(texts.words) else "-",
        "items that share their text": texts.same.percent if len(texts.words) else "-",
        "items whose text is nearly another's": texts.near.percent if texts.cosines is not None else "-",
    }


def summary(label: str, profile: Any, findings: Sequence[Any], advice: str) -> str:
    """A domain for the terminal: its findings with examples and remedies, and what to do with seen items.

    findings: ``data.profile.findings.Finding``.
    """
    lines = [f"{label}: {counted(findings)}"]
    for finding in findings:
        lines += _wrapped(f"{finding.level}: ", f"{finding.kind}: {finding.what}")
        lines += _wrapped("    for example: ", "; ".join(finding.examples)) if finding.examples else []
        lines += _wrapped("    remedy: ", finding.remedy)
    seen = profile.targets.seen["test"]
    told = f"{seen.percent} of the test targets: {advice}" if seen.whole else advice
    return "\n".join([*lines, *_wrapped("seen items: ", told)])


def counted(findings: Sequence[Any]) -> str:
    """``2 warnings, 1 note``."""
    levels = [finding.level for finding in findings]
    words = [f"{levels.count(level)} {level}{'s' * (levels.count(level) != 1)}" for level in ("warning", "note")]
    return ", ".join(words)


def _wrapped(first: str, text: str) -> list[str]:
    return textwrap.wrap(f"  {first}{text}", WIDTH, subsequent_indent=" " * 6, break_long_words=False)


def _day(time: Any) -> str:
    return str(time.astype("datetime64[D]"))


def _median(values: Any, counts: Any) -> float:
    return values[counts.cumsum().searchsorted((counts.sum() + 1) // 2)]
