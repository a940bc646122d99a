"""Statistics of prepared domains as the papers print them, the published counts beside them where there are any."""

from collections.abc import Mapping
from typing import Any

from .published import published_numbers

COLUMNS = ("users", "items", "interactions", "mean_length", "median_length", "density", "train_rows", "test_rows")


def statistics_table(statistics: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a domain, under it the published one of the same name.

    Args:
        statistics: name of a domain -> its ``statistics``.
    """
    rows = [("domain", *(column.replace("_", " ") for column in COLUMNS), "items' mean", "sparsity")]
    for name, numbers in statistics.items():
        rows.append(
            (
                name,
                *(f"{numbers[column]:,}" for column in COLUMNS),
                *_of_items(numbers["items"], numbers["interactions"], numbers["users"]),
            )
        )
        rows += [
            (
                f"published ({section.replace('_', '-')})", *(f"{count:,}" for count in counts),
                f"{counts[2] / counts[0]:.2f}", "", f"{counts[2] / counts[0] / counts[1]:.3g}", "", "",
                *_of_items(counts[1], counts[2], counts[0]),
            )
            for section, counts in published_counts(name).items()
        ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def published_counts(name: str) -> dict[str, list[int]]:
    """Section of published.yaml -> [users, items, interactions] of the domain of that name (blanks, dashes and case do
    not matter), as printed."""
    found = {}
    for section, domains in published_numbers()["dataset_statistics"].items():
        by_name = {_plain(domain): counts for domain, counts in domains.items()}
        if _plain(name) in by_name:
            found[section] = by_name[_plain(name)]
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _of_items(items: int, interactions: int, users: int) -> tuple[str, str]:
    """Interactions an item; the share of the pairs of user and item without one, which repeats hide."""
    untouched = 1 - interactions / users / items
    return f"{interactions / items:.1f}", f"{100 * untouched:.2f} %" if untouched >= 0 else "unknown (repeats)"
