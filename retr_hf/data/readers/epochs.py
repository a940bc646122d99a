"""Columns of times -> whole seconds since 1970, the one form that times are kept in."""

from pathlib import Path

import polars as pl

from ...errors import DataError

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # timestamps a second
_LATEST_SECOND = 10**11  # the year 5138: larger "seconds" are milliseconds
_DATES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M%#z")


def seconds(path: Path, times: pl.Series, unit: str) -> pl.Series:
    """Int64 seconds since 1970; null where there is no time: null, NaN, or as text "" or "NaN".

    Sub-second order is lost only between equal seconds, where file order decides.

    Args:
        path: of the file, for messages.
        times: dates, numbers, or text. Of text each value is a number or an ISO date, UTC where it has no zone.
        unit: of the numbers, a key of ``UNITS``.

    Raises:
        DataError: what is no time; seconds that are milliseconds.
    """
    if times.dtype in (pl.Date, pl.Datetime):
        return times.dt.epoch("s").cast(pl.Int64)
    if not (times.dtype.is_numeric() or times.dtype in (pl.String, pl.Null)):
        raise _no_time(path, times.dtype)
    made = _of_numbers(times, UNITS[unit])
    if unit == "s":
        check_latest(path, made.max(), "pass --timestamp-unit ms (or us, ns)")
    if made.null_count():
        there = times.is_not_nan() if times.dtype.is_float() else times.is_not_null()
        if times.dtype == pl.String:
            there = times.str.strip_chars().str.to_lowercase().is_in(["", "nan"]).not_()
            made = made.fill_null(_of_dates(times))
        if (unread := times.filter(there & made.is_null())).len():
            raise _no_time(path, repr(unread[0]))
    return made


def check_latest(source: object, latest: int | None, remedy: str) -> None:
    """Refuses seconds that can be none.

    Args:
        source: the file or address, for the message.
        latest: the largest of the seconds; None where there is none.
        remedy: what to do about milliseconds there.

    Raises:
        DataError: ``latest`` is after the year 5138.
    """
    if latest is not None and latest > _LATEST_SECOND:
        raise DataError(
            f"{source}: timestamps: expected seconds since 1970, got {latest}, which would be after the year 5000; "
            f"{remedy}"
        )


def _of_numbers(times: pl.Series, in_a_second: int) -> pl.Series:
    """Null where there is no number, an infinite one, or one that no Int64 holds."""
    exact = times.dtype == pl.String or not (times.dtype.is_float() or times.dtype.is_decimal())
    whole = times.cast(pl.Int64, strict=False) if exact else pl.Series(times.name, [None] * len(times), pl.Int64)
    whole = whole // in_a_second
    if not whole.null_count():
        return whole  # through floats, nanoseconds would lose digits
    return whole.fill_null((times.cast(pl.Float64, strict=False) // in_a_second).cast(pl.Int64, strict=False))


def _of_dates(times: pl.Series) -> pl.Series:
    """Null where there is no date of the ISO forms."""
    text = times.str.strip_chars().str.replace(r"\s*(Z|UTC)$", "+00:00").str.replace("T", " ", literal=True)
    made = pl.Series(times.name, [None] * len(times), pl.Int64)
    for form in _DATES:
        if made.null_count():
            made = made.fill_null(text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("s"))
    return made


def _no_time(path: Path, got: object) -> DataError:
    return DataError(
        f"{path}: timestamps: expected numbers (see --timestamp-unit), a date column, or dates as text such as "
        f"2020-01-31, 2020-01-31 11:26:28 (UTC) or 2020-01-31T11:26:28+01:00, got {got}; write them so"
    )
