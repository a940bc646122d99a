"""UCI Online Retail (and Online Retail II): the invoices of a British wholesaler; an invoice is a user.

From https://archive.ics.uci.edu/dataset/352/online+retail (Chen, 2015), CC BY 4.0, as `Online Retail.xlsx`; saved as
csv it needs nothing else, the xlsx itself needs the extra ``excel`` (fastexcel, one wheel without dependencies).

    InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
    536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,12/1/2010 8:26,2.55,17850,United Kingdom

All rows of an invoice have one time, so the order is that of the file: the lines of the invoice.

The dirt, and what becomes of it:

- cancelled invoices (their number starts with C): dropped and counted. NOTE: UniSRec keeps them:
  ``--keep-cancelled``;
- rows without a description (corrections of the stock): dropped and counted, as in UniSRec;
- a StockCode with several descriptions: the first holds, lower-cased, as in UniSRec;
- rows that repeat another of the invoice: kept; UniSRec's set drops them, and so does ``--duplicates identical``;
- csv files that are Latin-1, not UTF-8 (pound signs): recoded; dates as 12/1/2010 8:26 or 2010-12-01 08:26:00;
- a quarter of the rows has no CustomerID: it is not read.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, RATING, TEXT, TIMESTAMP, USER_ID
from .blocks import EITHER
from .line_formats import delimited
from .raw import RawLog
from .spool import Spool

_HEADERS = (
    b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
    b"Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",  # Online Retail II
)
_COLUMNS = {
    USER_ID: pl.String, ITEM_ID: pl.String, TEXT: pl.String, RATING: pl.Float32, "date": pl.String,
    "price": pl.String, "customer": pl.String, "country": pl.String,
}  # fmt: skip
_REQUIRED = [USER_ID, ITEM_ID, RATING, "date"]
_LINE = delimited(_COLUMNS, _REQUIRED, optional=[TEXT])


def read_online_retail(inputs: Sequence[Path], spool: Spool, *, keep_cancelled: bool = False) -> RawLog:
    """Reads the invoices; the rating is the quantity.

    Args:
        inputs: Online Retail.csv or Online Retail.xlsx; several files are one log
        spool: where the compact copy goes.
        keep_cancelled: keep cancelled invoices, as UniSRec does

    Raises:
        DataError: another header, xlsx without the extra; see ``Spool.lines``.
    """

    def wanted(frame: pl.DataFrame) -> pl.DataFrame:
        described = frame.filter(pl.col(TEXT) != "")
        spool.dirt.add("rows_without_description", frame.height - described.height)
        kept = described if keep_cancelled else described.filter(~pl.col(USER_ID).str.starts_with("C"))
        spool.dirt.add("rows_of_cancelled_invoices", described.height - kept.height)
        return kept

    files = [_as_csv(path, spool) for path in inputs]
    rows = spool.lines(
        "rows", files, _line, what=_HEADERS[0].decode(), encoding=EITHER, first_line=_is_header, then=wanted
    )
    return RawLog(
        events=rows.select(USER_ID, ITEM_ID, RATING, TIMESTAMP),
        items=rows.select(ITEM_ID, TEXT).unique(ITEM_ID, keep="first", maintain_order=True),
        reader="online-retail",
        inputs=inputs,
        options={"keep_cancelled": keep_cancelled},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by the lines of the invoice in the file; they have one time",
    )


def _as_csv(path: Path, spool: Spool) -> Path:
    if path.suffix.lower() != ".xlsx":
        return path
    if not path.is_file():
        raise DataError(f"{path}: expected a file, but there is none")
    try:
        sheets = pl.read_excel(path, sheet_id=0, engine="calamine", infer_schema_length=0)
    except ImportError as error:
        raise DataError(
            f"{path}: xlsx needs the extra `excel` (pip install 'retr_hf[excel]'), or save the sheet as csv"
        ) from error
    except Exception as error:  # the reader's own exceptions have no common base
        raise DataError(f"{path}: expected an xlsx file, but it cannot be read as one: {error}") from error
    target = spool.folder / f"{path.stem}.csv"
    pl.concat(sheets.values()).write_csv(target)
    return target


def _is_header(path: Path, line: bytes) -> bool:
    if line not in _HEADERS:
        raise DataError(
            f"{path}: expected the header {_HEADERS[0].decode()}, got {line[:100]!r}; save the sheet as it is"
        )
    return True


def _line(lines: bytes) -> pl.DataFrame:
    date = pl.col("date")
    american = date.str.to_datetime("%m/%d/%Y %H:%M", time_unit="ms", strict=False)
    iso = date.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False)
    frame = _LINE(lines).with_columns(pl.coalesce(american, iso).dt.epoch("s").alias(TIMESTAMP))
    if frame[TIMESTAMP].null_count():
        raise ValueError("expected an InvoiceDate such as 12/1/2010 8:26 or 2010-12-01 08:26:00")
    text = pl.col(TEXT).fill_null("").str.strip_chars().str.to_lowercase()
    return frame.with_columns(pl.when(text == "").then(text).otherwise(text + "."))
