"""The text of an item, made of several fields of it: of the user's own tables, or as UniSRec makes it of Amazon's."""

import html
from collections.abc import Callable, Iterable, Sequence

import polars as pl

from ..schema import ITEM_ID, TEXT
from .dirt import Dirt, shown

_TOO_LONG = 2000  # characters, from which on UniSRec empties a text field
_TOO_LONG_FIELDS = f"text_fields_of_{_TOO_LONG}_characters_or_more_left_out"


def join_text(items: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Several text fields -> one text an item.

    Each field: lists joined by blanks; HTML entities decoded; quotes dropped; line ends become a blank; the dots it
    ends with become one dot (which is added where there is none). Fields are joined by a blank, empty ones left out.

    Args:
        items: the item table.
        columns: its text columns, String or List(String), in the order they are joined.

    Returns:
        [rows] String.
    """
    return _joined(_cleaned(items[column], between_lines=" ") for column in columns)


def text_as_unisrec(columns: Sequence[str], dirt: Dirt) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """What makes ``item_id``, ``text`` of ``item_id`` and ``columns``, as UniSRec's preprocessing does.

    As ``join_text``, but lines are glued to one another, and a field of 2,000 characters or more is left out, which is
    counted: Amazon's titles may hold a page's script.
    NOTE: UniSRec writes a lone "." for an empty field; ours leaves it out.

    Args:
        columns: as of ``join_text``.
        dirt: counts the fields that are left out.
    """

    def texts(items: pl.DataFrame) -> pl.DataFrame:
        fields = []
        for column in columns:
            field = _cleaned(items[column], between_lines="")
            too_long = field.str.len_chars() >= _TOO_LONG
            if count := int(too_long.sum()):
                at = too_long.arg_max()
                sample = f"{column} of item {items[ITEM_ID][at]!r}: {shown(field[at].encode())}"
                dirt.add(_TOO_LONG_FIELDS, count, sample)
            fields.append(field.set(too_long, ""))
        return items.select(ITEM_ID).with_columns(_joined(fields).alias(TEXT))

    return texts


def _cleaned(field: pl.Series, between_lines: str) -> pl.Series:
    """A field, its last dot included; "" where there is nothing."""
    if isinstance(field.dtype, pl.List):
        field = field.cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
    field = field.cast(pl.String).fill_null("")
    if field.str.contains("&", literal=True).any():
        field = field.map_elements(html.unescape, return_dtype=pl.String)
    field = field.str.replace_all('"', "", literal=True).str.replace_all(r"[\r\n]+", between_lines)
    field = field.str.strip_chars().str.replace(r"\.+$", "")
    return (field + ".").set(field == "", "")


def _joined(fields: Iterable[pl.Series]) -> pl.Series:
    named = [field.set(field == "", None).alias(str(place)) for place, field in enumerate(fields)]
    return pl.DataFrame(named).select(pl.concat_str(pl.all(), separator=" ", ignore_nulls=True)).to_series()
