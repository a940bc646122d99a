"""A look at prepared domains: profiled, judged, drawn; the hall where data and report meet for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .data.domain import PreparedDomain, load_domain
from .data.profile.domain_profile import DomainProfile, profile_domain
from .data.profile.findings import Finding, advice_on_seen_items, findings
from .errors import DataError
from .model.item_catalog import write_whole
from .report.dataset_statistics import statistics_table
from .report.domain_facts import summary
from .report.domain_figures import plot_domain
from .report.domain_page import domain_page

PAGE_FILE = "look.html"


@dataclass(frozen=True)
class Look:
    """What was seen.

    profiles, findings: of each domain, by its label: its name, or its path where names are the same.
    text: for the terminal.
    page, pictures: the files written.
    """

    profiles: dict[str, DomainProfile]
    findings: dict[str, list[Finding]]
    text: str
    page: Path
    pictures: list[Path]


def look_at_domains(paths: Sequence[str | Path], output: str | Path | None = None) -> Look:
    """Looks at prepared domains and writes one page, look.html, and a PNG for each domain.

    Args:
        paths: folders of prepared domains.
        output: folder for the files, made if absent; None is looks/NAME, or looks/NAME_and_2_more. Files of the same
            names are replaced.

    Raises:
        DataError: none given, one given twice, one that is no prepared domain, an output that is a file.
        ValueError: a damaged catalogue.
    """
    labelled = _labelled(paths)
    first, *others = labelled
    folder = Path(output or Path("looks", _file_name(first) + (f"_and_{len(others)}_more" if others else "")))
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder for the page and its pictures, got a file; choose another output")

    profiles = {label: profile_domain(domain) for label, domain in labelled.items()}
    found = {label: findings(profile) for label, profile in profiles.items()}
    advice = {label: advice_on_seen_items(profile) for label, profile in profiles.items()}
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [plot_domain(label, profiles[label], folder / f"{_file_name(label)}.png") for label in profiles]
    page = domain_page({label: (profiles[label], found[label], advice[label]) for label in profiles})
    write_whole(folder / PAGE_FILE, lambda path: path.write_text(page, encoding="utf-8"))
    summaries = [summary(label, profiles[label], found[label], advice[label]) for label in profiles]
    table = statistics_table({label: profile.statistics for label, profile in profiles.items()})
    return Look(profiles, found, "\n\n".join([table, *summaries]), folder / PAGE_FILE, pictures)


def _labelled(paths: Sequence[str | Path]) -> dict[str, PreparedDomain]:
    paths = [Path(path) for path in paths]
    if not paths:
        raise DataError("expected at least one prepared domain to look at, got none")
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise DataError(f"{path}: is given twice; name each domain once")
    domains = [load_domain(path) for path in paths]
    names = [domain.name for domain in domains]
    return {
        domain.name if names.count(domain.name) == 1 else str(path): domain
        for path, domain in zip(paths, domains, strict=True)
    }


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "_", label).strip("._") or "domain"
