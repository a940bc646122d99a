"""Million Song Dataset, the Echo Nest taste profile: `train_triplets.txt`, 48 million (user, song, plays); no times.

From http://millionsongdataset.com/tasteprofile/ (McFee et al., WWW 2012; Bertin-Mahieux et al., ISMIR 2011); for
research and non-commercial use. `unique_tracks.txt` (http://millionsongdataset.com/pages/getting-dataset/) has the
titles.

    train_triplets.txt   user TAB song TAB plays                           b80344d0...  SOAKIMP12A8C130995  1
    unique_tracks.txt    track<SEP>song<SEP>artist<SEP>title

The order: there are no times, and none can be made up. A user's songs keep the order of the file, in which it means
nothing known. A sequence model can be run on it (the RETR paper does), but "next" is then a place in a file.

The dirt, and what becomes of it: a song has several tracks: the first row holds. The publishers list some 19,000
songs matched to wrong tracks (sid_mismatches.txt): kept, their texts are those of the wrong track.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..schema import ITEM_ID, RATING, USER_ID
from .item_text import text_as_unisrec
from .line_formats import delimited
from .raw import RawLog
from .spool import Spool

_TRIPLET = delimited(
    {USER_ID: pl.String, ITEM_ID: pl.String, RATING: pl.Float32}, [USER_ID, ITEM_ID, RATING], "\t", quoted=False
)
_TRACK = delimited(
    {"track": pl.String, ITEM_ID: pl.String, "artist": pl.String, "title": pl.String}, [ITEM_ID], "<SEP>", quoted=False,
    optional=["artist", "title"],
)  # fmt: skip


def read_million_songs(inputs: Sequence[Path], spool: Spool, *, items: Path | None = None) -> RawLog:
    """Reads the taste profile; the rating is the number of plays.

    Args:
        inputs: train_triplets.txt
        spool: where the compact copy goes.
        items: unique_tracks.txt; without it a domain of ids only

    Raises:
        DataError: see ``Spool.lines``.
    """
    events = spool.lines("events", inputs, _TRIPLET, what="user, song, plays separated by tabs")
    texts = None
    if items:
        then = text_as_unisrec(["title", "artist"], spool.dirt)
        texts = spool.lines("items", [items], _TRACK, what="track<SEP>song<SEP>artist<SEP>title", then=then)
    return RawLog(
        events=events,
        items=texts,
        reader="million-songs",
        inputs=[*inputs, *([items] if items else [])],
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by place in the file; there are no times",
    )
