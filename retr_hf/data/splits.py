"""Splits: one sequence a user -> train, validation and test rows, in three ways; and how much training peeks ahead.

In validation and test the last item of a row is the target and what stands before is the history; in train every item
after the first is a target. ``leave-one-out`` is what the papers report. It leaks across users: when one user's target
happens, others have trained on what came later. ``global-time`` does not; ``leaking_train_events`` counts it for any.
"""

from collections.abc import Sequence

import polars as pl

from ..errors import DataError
from .schema import ITEM_IDS, PIVOTAL, SPLITS, TEST, TIMESTAMPS, TRAIN, VALIDATION

LEAVE_ONE_OUT, RATIO, GLOBAL_TIME = "leave-one-out", "ratio", "global-time"
WAYS = {
    LEAVE_ONE_OUT: "a user's last interaction is tested, the one before validates",
    RATIO: "the first part of every user's interactions trains, every interaction of the later parts is a target",
    GLOBAL_TIME: "interactions before a date train; a user's last one before and after a second date is the target",
}
FRACTIONS = (0.8, 0.1, 0.1)


def split_sequences(
    sequences: pl.DataFrame, way: str = LEAVE_ONE_OUT, fractions: Sequence[float] = FRACTIONS
) -> dict[str, pl.DataFrame]:
    """Cuts one row a user into the three splits.

    Args:
        sequences: ``user_id`` and the list columns ``item_ids``[, ``timestamps``, ``pivotal``], oldest first.
        way: a key of WAYS.
        fractions: of the interactions, for train, validation and test; not used by leave-one-out.

    Raises:
        DataError: no such way, fractions that are none, a split by time without times, a split without test rows.
    """
    if way not in WAYS:
        raise DataError(f"split: expected one of {', '.join(WAYS)}; got {way!r}")
    if way == LEAVE_ONE_OUT:
        return leave_one_out(sequences)
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"split fractions: expected three positive numbers that sum to 1; got {list(fractions)}")
    splits = (by_ratio if way == RATIO else by_time)(sequences, fractions)
    if empty := [name for name in SPLITS if splits[name].is_empty()]:
        raise DataError(
            f"{way}: expected rows in every split, but {', '.join(empty)} has none (of {sequences.height:,} users); "
            "pass other fractions, or leave-one-out"
        )
    return splits


def leave_one_out(sequences: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Users with at least three items give train (all but the last two), validation (all but the last) and test (all);
    in the latter two the last item is the target. Users with fewer give one train row, whole."""
    length = _length()
    evaluated = sequences.filter(length >= 3)
    keep = [pl.when(length >= 3).then(length - last).otherwise(length) for last in (1, 2)]
    return {TRAIN: _heads(sequences, keep[1]), VALIDATION: _heads(evaluated, keep[0]), TEST: evaluated}


def by_ratio(sequences: pl.DataFrame, fractions: Sequence[float]) -> dict[str, pl.DataFrame]:
    """Of n interactions of a user the last floor(n * test) are test targets, the floor(n * validation) before them
    validation targets, and the rest trains. Every target has a row of its own, which ends with it.

    NOTE: rows repeat their histories, so files grow with the square of a user's length.
    """
    length = _length()
    tested, validated = ((length * part + 1e-9).floor().cast(pl.Int64) for part in (fractions[2], fractions[1]))
    splits = {TRAIN: _heads(sequences, length - tested - validated)}
    for name, first, end in (
        (VALIDATION, length - tested - validated, length - tested),
        (TEST, length - tested, length),
    ):
        rows = sequences.with_columns(pl.int_ranges(pl.max_horizontal(first, 1), end).alias("target"))
        rows = rows.explode("target").filter(pl.col("target").is_not_null())
        splits[name] = _heads(rows, pl.col("target") + 1).drop("target")
    return splits


def by_time(sequences: pl.DataFrame, fractions: Sequence[float]) -> dict[str, pl.DataFrame]:
    """Two dates cut all interactions into parts of about ``fractions`` (equal times are never cut). Train is what is
    before the first; a user's last interaction between the two, if it has a history, is a validation row; the
    last one from the second on is a test row."""
    if TIMESTAMPS not in sequences.columns:
        raise DataError(
            f"{GLOBAL_TIME}: expected a source with times, got one without; choose {RATIO} or {LEAVE_ONE_OUT}"
        )
    times = sequences[TIMESTAMPS].explode().sort()
    first, second = (
        times[min(int(times.len() * part), times.len() - 1)] for part in (fractions[0], fractions[0] + fractions[1])
    )
    rows = sequences.with_columns(_before(first).alias("trained"), _before(second).alias("validated"))
    validated, trained, length = pl.col("validated"), pl.col("trained"), _length()
    splits = {
        TRAIN: _heads(rows.filter(trained > 0), trained),
        VALIDATION: _heads(rows.filter((validated > trained) & (validated > 1)), validated),
        TEST: rows.filter((length > validated) & (length > 1)),
    }
    return {name: frame.drop("trained", "validated") for name, frame in splits.items()}


def leaking_train_events(splits: dict[str, pl.DataFrame]) -> int | None:
    """Interactions in train at or after the first target of validation or test; None where there are no times, or no
    targets. 0 after ``by_time``."""
    targets = [splits[name] for name in (VALIDATION, TEST) if not splits[name].is_empty()]
    if not targets or TIMESTAMPS not in splits[TRAIN].columns:
        return None
    first = min(frame.select(pl.col(TIMESTAMPS).list.last().min()).item() for frame in targets)
    return int(splits[TRAIN].select((pl.col(TIMESTAMPS).explode() >= first).sum()).item())


def _before(time: int) -> pl.Expr:
    return pl.col(TIMESTAMPS).list.eval(pl.element() < time).list.sum().cast(pl.Int64)


def _length() -> pl.Expr:
    return pl.col(ITEM_IDS).list.len().cast(pl.Int64)


def _heads(rows: pl.DataFrame, keep: pl.Expr) -> pl.DataFrame:
    """The first ``keep`` entries of every aligned list."""
    aligned = [column for column in (ITEM_IDS, TIMESTAMPS, PIVOTAL) if column in rows.columns]
    return rows.with_columns(pl.col(column).list.head(keep) for column in aligned)
