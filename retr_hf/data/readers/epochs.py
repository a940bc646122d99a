"""Columns of times -> whole seconds since 1970, the one form that times are kept in."""

import math
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ...errors import DataError

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # timestamps a second
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # seconds: 1990 and 2100; other times are placeholders, or no times
_LATEST_SECOND = 10**11  # the year 5138: larger "seconds" are milliseconds
_DATES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M%#z")


class TimeColumn:
    """One column of times, read in batches.

    Args:
        path: of the file, for messages.
        unit: of its numbers, a key of ``UNITS``.
    """

    def __init__(self, path: Path, unit: str):
        self._path, self._unit = path, unit
        self._read, self._unread, self._first_unread = 0, 0, ""
        # Numbers as they stand in the file: those read, and one beyond all dates.
        self._smallest, self._largest, self._too_large = math.inf, -math.inf, -math.inf

    def seconds(self, times: pl.Series) -> tuple[pl.Series, pl.Series]:
        """The times of one batch; sub-second order is lost only between equal seconds, where file order decides.

        Args:
            times: dates, numbers, or text. Of text each value is a number or an ISO date, UTC where it has no zone.

        Returns:
            [rows] Int64 seconds since 1970, null where there is no time (null, NaN, or as text "" or "NaN") and where
            what is there cannot be read; [rows] Boolean whether it cannot be read: it is no number and no date, or a
            number that would be after the year 5138.

        Raises:
            DataError: a column that holds something else.
        """
        if times.dtype in (pl.Date, pl.Datetime):
            return times.dt.epoch("s").cast(pl.Int64), pl.repeat(False, len(times), eager=True)
        if times.dtype == pl.String:
            times = times.str.strip_chars()
        elif not (times.dtype.is_numeric() or times.dtype == pl.Null):
            raise self._no_times(str(times.dtype))
        made = self._of_numbers(times)
        unread = made.is_null() & times.is_not_null()
        if unread.any():
            if times.dtype == pl.String:
                made = made.fill_null(_of_dates(times))
                unread &= made.is_null() & ~times.str.to_lowercase().is_in(["", "nan"])
            elif times.dtype.is_float():
                unread &= times.is_not_nan()
        if unread.any() and not self._unread:
            self._first_unread = str(times[unread.arg_max()])
        self._unread += int(unread.sum())
        self._read += len(made) - made.null_count()
        return made, unread

    def check(self, enough: int = 0) -> None:
        """To be called after the last batch; with ``enough`` after any, to give up once so many cannot be read.

        Raises:
            DataError: more times cannot be read than can; numbers that all lie before 1990 and would not in another
                unit, or are dates written without a separator, 20200131.
        """
        if self._unread > max(self._read, enough):
            self._check_unit(self._too_large, f"{self._unread:,} cannot be read, {self._read:,} can")
            raise self._no_times(
                f"{self._first_unread!r} (of {self._unread:,} that cannot be read; {self._read:,} can)"
            )
        if not enough and self._largest / UNITS[self._unit] < EARLIEST:
            self._check_unit(self._largest, "and none is later")
            if _digits_of_a_date(self._smallest) and _digits_of_a_date(self._largest):
                raise self._no_times(f"{self._smallest:.0f} to {self._largest:.0f}, dates without a separator")

    def _of_numbers(self, times: pl.Series) -> pl.Series:
        """Seconds; null where there is no number, an infinite one, or one beyond all dates."""
        made = _whole(times, UNITS[self._unit])
        if (late := (made > _LATEST_SECOND).fill_null(False)).any():
            self._too_large = max(self._too_large, float(times[late.arg_max()]))
            made = made.set(late, None)
        if (at := made.arg_max()) is not None:
            self._largest = max(self._largest, float(times[at]))
            self._smallest = min(self._smallest, float(times[made.arg_min()]))
        return made

    def _check_unit(self, number: float, others: str) -> None:
        """Refuses the unit if another makes a date of ``number``."""
        if fitting := fitting_unit(number):
            read, meant = (_date(number / UNITS[unit]) for unit in (self._unit, fitting))
            raise DataError(
                f"{self._path}: timestamps: expected {self._unit} since 1970, got {number:.0f}, which would be {read} "
                f"({others}); in {fitting} it is {meant}: pass --timestamp-unit {fitting}"
            )

    def _no_times(self, got: str) -> DataError:
        return DataError(
            f"{self._path}: timestamps: expected numbers (see --timestamp-unit), a date column, or dates as text such "
            f"as 2020-01-31, 2020-01-31 11:26:28 (UTC) or 2020-01-31T11:26:28+01:00, got {got}; write them so"
        )


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


def fitting_unit(number: float) -> str | None:
    """The unit that makes a date between 1990 and 2100 of a number; None where none does."""
    return next((unit for unit, parts in UNITS.items() if EARLIEST <= number / parts < LATEST), None)


def _whole(times: pl.Series, in_a_second: int) -> pl.Series:
    """Whole seconds; null where there is no number, an infinite one, or one that no Int64 holds."""
    exact = times.dtype == pl.String or not (times.dtype.is_float() or times.dtype.is_decimal())
    whole = times.cast(pl.Int64, strict=False) if exact else pl.Series(times.name, [None] * len(times), pl.Int64)
    whole = whole // in_a_second
    if not whole.null_count():
        return whole  # through floats, nanoseconds would lose digits
    return whole.fill_null((times.cast(pl.Float64, strict=False) // in_a_second).cast(pl.Int64, strict=False))


def _of_dates(times: pl.Series) -> pl.Series:
    """Null where there is no date of the ISO forms."""
    text = times.str.replace(r"\s*(Z|UTC)$", "+00:00").str.replace("T", " ", literal=True)
    made = pl.Series(times.name, [None] * len(times), pl.Int64)
    for form in _DATES:
        if made.null_count():
            made = made.fill_null(text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("s"))
    return made


def _digits_of_a_date(number: float) -> bool:
    """Whether a number reads YYYYMMDD, a day between 1990 and 2099."""
    try:
        day = datetime.strptime(f"{number:.0f}", "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return len(f"{number:.0f}") == 8 and EARLIEST <= day.timestamp() < LATEST


def _date(second: float) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d}" if second <= _LATEST_SECOND else "after the year 5000"
