"""What a caller gives as a history, or as several: any ordered collection of raw ids will do."""

from collections.abc import Iterable, Mapping, Sequence, Set

EXPECTED = "expected a list of item ids, oldest first, or a list of such lists"


def require_list(ids: Iterable, name: str, of: str, ordered: bool = True) -> None:
    """Raises ValueError for a string, which is a sequence too, and for what is none; ``ordered`` also for a set."""
    if not _lists(ids) or (ordered and isinstance(ids, Set)):
        came = "the string" if isinstance(ids, str) else type(ids).__name__
        raise ValueError(f"{name}: expected a list of {of}, got {came} {ids!r}")


def is_single(histories: Sequence[str] | Sequence[Sequence[str]]) -> bool:
    """Whether this is one history, and not a list, array or Series of some; a string is one too, which ``lookup``
    refuses.

    Raises:
        ValueError: it is neither, or would be empty once it is read (an iterator).
    """
    if isinstance(histories, str):
        return True
    if not _lists(histories) or isinstance(histories, Set) or not hasattr(histories, "__len__"):
        raise ValueError(f"history: {EXPECTED}, got {type(histories).__name__} {histories!r}")
    return not _lists(next(iter(histories), ""))


def _lists(ids: object) -> bool:
    return isinstance(ids, Iterable) and not isinstance(ids, (str, Mapping))
