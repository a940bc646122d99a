"""Fonts for titles in every script: what is installed and has the letters that matplotlib's own font lacks."""

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

logger = logging.getLogger(__name__)


def families_for(texts: Iterable[str]) -> list[str]:
    """Families of fonts, matplotlib's own first, in which the letters of some texts can be drawn, as far as any
    installed font has them; one warning names the letters that none has.

    The machine is searched anew, beside matplotlib's own list of fonts, which is of the day it was first imported.
    """
    families = list(rcParams["font.family"])
    letters = {letter for letter in "".join(texts) if unicodedata.category(letter)[0] not in "ZC"}
    missing = {ord(letter) for letter in letters} - set(FT2Font(findfont(FontProperties())).get_charmap())
    fonts = list(_installed(missing)) if missing else []
    while fonts and missing:
        best = max(fonts, key=lambda font: (len(font.has & missing), font.regular))
        if not best.has & missing:
            break
        missing -= best.has
        if best.path not in _listed():
            fontManager.addfont(best.path)
        families.append(best.family)
    if missing:
        some = "".join(map(chr, sorted(missing)[:10])) + (" ..." if len(missing) > 10 else "")
        logger.warning(
            "no installed font has %d of the titles' letters (%s), they are drawn as boxes: install one that does, "
            "such as Noto (Debian's fonts-noto-cjk for Chinese, Japanese and Korean), and draw again",
            len(missing), some,
        )  # fmt: skip
    return families


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Without matplotlib's warning for each letter it has no glyph of: ``families_for`` has told it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


class _Font(NamedTuple):
    path: str
    family: str
    regular: bool
    has: set[int]


def _listed() -> set[str]:
    return {str(entry.fname) for entry in fontManager.ttflist}


def _installed(wanted: set[int]) -> Iterator[_Font]:
    """The fonts that matplotlib can draw, in the order of their paths, and which of some letters each has."""
    for path in sorted(_listed() | set(findSystemFonts())):
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # not a font after all, or of a kind that it does not read
            continue
        # Coloured emoji are pictures; the last resort has a box for every letter.
        if font.scalable and not font.family_name.startswith("Last Resort"):
            yield _Font(path, font.family_name, font.style_name == "Regular", wanted & set(font.get_charmap()))
