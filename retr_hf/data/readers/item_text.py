"""The text of an item, made of several fields as UniSRec does."""

import html
from collections.abc import Sequence

import polars as pl

_LONGEST_FIELD = 2000  # characters; UniSRec empties longer text fields


def join_text(items: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Several text fields -> one text an item, cleaned as UniSRec's preprocessing does.

    Each field: lists joined by blanks; HTML entities decoded; quotes, CR and LF dropped; the dots it ends with become
    one dot (which is added where there is none); 2,000 characters or more make it empty. Fields are joined by a blank.
    NOTE: UniSRec writes a lone "." for an empty field; ours leaves it out.

    Args:
        items: the item table.
        columns: its text columns, String or List(String), in the order they are joined.

    Returns:
        [rows] String.
    """
    fields = []
    for column in columns:
        field = items[column]
        if isinstance(field.dtype, pl.List):
            field = field.cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
        field = field.cast(pl.String).fill_null("")
        if field.str.contains("&", literal=True).any():
            field = field.map_elements(html.unescape, return_dtype=pl.String)
        field = field.str.replace_all(r'["\r\n]', "").str.strip_chars().str.replace(r"\.+$", "")
        field += "."
        fields.append(field.set(~field.str.len_chars().is_between(2, _LONGEST_FIELD - 1), None).alias(column))
    return pl.DataFrame(fields).select(pl.concat_str(pl.all(), separator=" ", ignore_nulls=True)).to_series()
