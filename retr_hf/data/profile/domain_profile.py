"""DomainProfile: all numbers of a look at a prepared domain."""

from dataclasses import dataclass
from typing import Any

from ..domain import PreparedDomain
from .events import open_events
from .histories import HistoryProfile, profile_histories
from .popularity import PopularityProfile, profile_popularity
from .targets import TargetProfile, profile_targets
from .texts import TextProfile, profile_texts
from .times import TimeProfile, profile_times


@dataclass(frozen=True)
class DomainProfile:
    """Attributes:

    name: of the domain.
    statistics: of its domain.json.
    reader, retr_hf_version, created: how the domain came about.
    times: None where the domain has no times.
    """

    name: str
    statistics: dict[str, Any]
    reader: str
    retr_hf_version: str
    created: str
    histories: HistoryProfile
    popularity: PopularityProfile
    targets: TargetProfile
    times: TimeProfile | None
    texts: TextProfile


def profile_domain(domain: PreparedDomain) -> DomainProfile:
    """Looks at a domain: vectorised over its interactions, which are held in memory, and blockwise over its vectors.

    Raises:
        DataError: a split is missing.
        ValueError: the catalogue is damaged, or its vectors belong to another one.
    """
    events = open_events(domain)
    return DomainProfile(
        name=domain.name,
        statistics=domain.statistics,
        reader=domain.provenance.get("reader", "unknown"),
        retr_hf_version=domain.provenance.get("retr_hf_version", "unknown"),
        created=domain.provenance.get("created", "unknown"),
        histories=profile_histories(events),
        popularity=profile_popularity(events),
        targets=profile_targets(events),
        times=profile_times(events),
        texts=profile_texts(events),
    )
