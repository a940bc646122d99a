"""Published numbers (published.yaml): what the tables print beside what was measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from ..errors import DataError
from .results import ResultRow

PUBLISHED_CHOICES = ("matching", "all", "none")
SECTIONS = {  # protocol of a row -> sections of the file measured the same way
    "full": ("cross_domain",),
    "sampled": ("intra_domain_paper", "intra_domain_poster", "ablations_paper", "ablations_poster"),
}
ABOUT = ("metrics", "sources", "document", "candidates")  # what a section says of all its numbers
PRINTED_NAMES = {"popularity": "poprec"}  # our name in small letters -> theirs


@dataclass(frozen=True)
class PublishedResult:
    """One system on one domain, as printed.

    sources: the pre-training domains of the printed setting. document: which of the two, where they differ.
    candidates: how many items a target was ranked among, where that is a choice; then users are those of the printed
    data set, None where they are not known.
    """

    system: str
    domain: str
    sources: tuple[str, ...]
    metrics: dict[str, float]
    document: str = ""
    candidates: int | None = None
    users: int | None = None

    @property
    def label(self) -> str:
        """Its name in a table, marked as a claim."""
        return f"{self.system} (published{', ' if self.document else ''}{self.document})"

    def is_of(self, row: ResultRow) -> bool:
        """Whether it may stand beside a row of its protocol: the same domain (by its name, in any case), real data and
        the test split; where candidates were sampled also as many of them, and as many users as printed."""
        same = row.domain.lower() == self.domain.lower() and row.split == "test" and not row.synthetic
        return same and (self.candidates is None or (self.candidates, self.users) == (row.candidates, row.num_users))


@cache
def published_numbers() -> dict[str, Any]:
    """The whole of published.yaml. Do not change what it returns."""
    return yaml.safe_load(files(__package__).joinpath("published.yaml").read_text(encoding="utf-8"))


@cache
def published_results(protocol: str) -> tuple[PublishedResult, ...]:
    """All printed results that were measured by a protocol; nobody printed ``full-unseen`` for these domains."""
    found = []
    for name in SECTIONS.get(protocol, ()):
        section = published_numbers()[name]
        about = {key: section[key] for key in ("document", "candidates") if key in section}
        for domain, systems in ((key, value) for key, value in section.items() if key not in ABOUT):
            counts = published_numbers()["dataset_statistics"]["intra_domain"].get(domain, [None])
            for system, values in systems.items():
                metrics = dict(values if isinstance(values, dict) else zip(section["metrics"], values, strict=True))
                users = counts[0] if "candidates" in about else None
                sources = tuple(section.get("sources", ()))
                found.append(PublishedResult(system, domain, sources, metrics, users=users, **about))
    return tuple(found)


def claims_beside(rows: Sequence[ResultRow], published: str = "matching") -> list[PublishedResult]:
    """The printed results that may stand beside rows of one protocol, under the rows' names of their domains.

    NOTE: printed sampled rankings drew their own 100 negatives: the same protocol, not the same candidates.

    Args:
        published: ``matching``, those of the systems in the rows (what stands in brackets in a name does not count);
            ``all``; or ``none``.

    Raises:
        DataError: an unknown choice.
    """
    if published not in PUBLISHED_CHOICES:
        raise DataError(f"published must be one of {', '.join(PUBLISHED_CHOICES)}; got {published!r}")
    if published == "none" or not rows:
        return []
    systems = {printed_name(row.system) for row in rows}
    claims = []
    for claim in published_results(rows[0].protocol):
        name = next((row.domain for row in rows if claim.is_of(row)), None)
        if name is not None and (published == "all" or claim.system.lower() in systems):
            claims.append(replace(claim, domain=name))
    return claims


def printed_name(system: str) -> str:
    """What the papers call a system of ours, in small letters: "RETR (poster)" is their "retr"."""
    name = re.sub(r" \(.*\)$", "", system.lower())
    return PRINTED_NAMES.get(name, name)
