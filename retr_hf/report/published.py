"""Published numbers (published.yaml): what the tables print beside what was measured."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

SECTIONS = {"full": "cross_domain"}  # protocol of a row -> section of the file measured the same way


@dataclass(frozen=True)
class PublishedResult:
    """One system on one domain, as printed. ``sources`` are the pre-training domains of the printed setting."""

    system: str
    domain: str
    sources: tuple[str, ...]
    metrics: dict[str, float]


@cache
def published_numbers() -> dict[str, Any]:
    """The whole of published.yaml. Do not change what it returns."""
    return yaml.safe_load(files(__package__).joinpath("published.yaml").read_text(encoding="utf-8"))


def published_results(protocol: str) -> list[PublishedResult]:
    """The printed results that may stand beside rows of ``protocol``: none but for ``full``.

    The printed sampled rankings drew their own negatives from differently cut data, and nobody printed
    ``full-unseen`` for these domains: such numbers would look comparable and are not.
    """
    section = dict(published_numbers()[SECTIONS[protocol]]) if protocol in SECTIONS else {}
    names, sources = section.pop("metrics", []), tuple(section.pop("sources", ()))
    return [
        PublishedResult(system, domain, sources, dict(zip(names, values, strict=True)))
        for domain, systems in section.items()
        for system, values in systems.items()
    ]
