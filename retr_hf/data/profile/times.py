"""Times: when things happened, where the split lies in time, and whether the times can be right."""

from dataclasses import dataclass

import numpy as np

from ..readers.epochs import EARLIEST, LATEST, UNITS, fitting_unit
from ..schema import SPLITS, TEST, TRAIN, VALIDATION
from .events import Events
from .part import Part

_HOURS, _DAYS = 3, 92  # spans, in days, up to which a bin is an hour, a day; a month beyond


@dataclass(frozen=True)
class TimeProfile:
    """Of whole histories; bins of an hour, a day or a month.

    Attributes:
        unit: "hour", "day" or "month".
        bins: [B] datetime64 when each begins.
        counts: split -> [B] training interactions; of validation and test the targets.
        first, last: datetime64[s] of the plausible times.
        impossible: times before 1990 or from 2100 on: not in ``bins``.
        read_as: the unit that numbers of the log were read in, where that was an option; "" where it was none.
        fitting: the unit in which the latest impossible time would be possible; None where none is known.
        unordered: steps of a history that go back in time.
        tied: steps of a history that take no time, so that their order is arbitrary.
        leaking: training interactions at or after the first target (``splits.leaking_train_events``).
        after_median: training interactions at or after the time by which half of the test targets have happened.
        examples: "impossible", "unordered" -> a user and the time.
    """

    unit: str
    bins: np.ndarray
    counts: dict[str, np.ndarray]
    first: np.datetime64
    last: np.datetime64
    impossible: Part
    read_as: str
    fitting: str | None
    unordered: Part
    tied: Part
    leaking: Part
    after_median: Part
    examples: dict[str, list[str]]


def profile_times(events: Events) -> TimeProfile | None:
    """The numbers of the times of a domain, None where it has none."""
    whole = events.whole
    if whole.timestamps is None:
        return None
    plausible = _plausible(whole.timestamps)
    impossible = np.flatnonzero(~plausible)
    steps = np.diff(whole.timestamps)[events.rows[1:] == events.rows[:-1]]
    backwards = np.flatnonzero((np.diff(whole.timestamps) < 0) & (events.rows[1:] == events.rows[:-1])) + 1
    known = whole.timestamps[plausible]
    first, last = (np.datetime64(int(time), "s") for time in ((known.min(), known.max()) if len(known) else (0, 0)))

    happened = {name: split.timestamps[split.offsets[1:] - 1] for name, split in events.splits.items()}
    happened[TRAIN] = trained = events.splits[TRAIN].timestamps
    unit, bins = _bins(first, last)
    read_as = events.domain.provenance.get("options", {}).get("timestamp_unit", "")
    as_written = whole.timestamps[impossible].max(initial=0) * float(UNITS.get(read_as, 0))
    targets = np.concatenate([happened[VALIDATION], happened[TEST]])
    middle = np.median(happened[TEST]) if len(happened[TEST]) else np.inf
    return TimeProfile(
        unit=unit,
        bins=bins[:-1],
        counts={name: _counts(happened[name], bins) for name in SPLITS},
        first=first,
        last=last,
        impossible=Part(len(impossible), len(whole.timestamps)),
        read_as=read_as,
        fitting=fitting_unit(as_written),
        unordered=Part(len(backwards), len(steps)),
        tied=Part(int((steps == 0).sum()), len(steps)),
        leaking=Part(int((trained >= targets.min()).sum()) if len(targets) else 0, len(trained)),
        after_median=Part(int((trained >= middle).sum()), len(trained)),
        examples={
            name: [f"{events.user(events.rows[event])}, timestamp {whole.timestamps[event]}" for event in found[:2]]
            for name, found in (("impossible", impossible), ("unordered", backwards))
        },
    )


def _plausible(times: np.ndarray) -> np.ndarray:
    return (times >= EARLIEST) & (times < LATEST)


def _bins(first: np.datetime64, last: np.datetime64) -> tuple[str, np.ndarray]:
    """Unit and edges, one more than there are bins."""
    days = (last - first) / np.timedelta64(1, "D")
    unit, code = ("hour", "h") if days <= _HOURS else ("day", "D") if days <= _DAYS else ("month", "M")
    return unit, np.arange(first.astype(f"datetime64[{code}]"), last.astype(f"datetime64[{code}]") + 2)


def _counts(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    places = edges.astype("datetime64[s]").astype(np.int64)
    bins = np.searchsorted(places, times[_plausible(times)], side="right") - 1
    return np.bincount(bins, minlength=len(edges) - 1)[: len(edges) - 1]
