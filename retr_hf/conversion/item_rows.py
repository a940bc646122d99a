"""Which row of RecBole's item table is which item: RecBole numbers items itself, and its checkpoint does not say how.

It takes the item tokens of its files in the order in which they first appear (pandas.factorize; row 0 is padding):
without ``benchmark_filename`` those of ``X.inter``; with it, of the named files ``X.NAME.inter`` one after the other,
first all of the item column, then all of each history column (``alias_of_item_id``). A filter takes items out before.

There are three ways to know the order, and nothing is ever guessed:
- the tokens themselves, written by RecBole (``tokens_from_file``);
- the same files again (``tokens_from_inter``), refused where a setting says that RecBole filtered them;
- UniSRec's fine-tuned checkpoints hold the text vector of every row: a row whose vector only one item has is that item
  (``tokens_from_texts``), and an order that is known otherwise is held against them (``check_texts``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..errors import DataError

PADDING = "[PAD]"
ASK_RECBOLE = (
    "have RecBole write the order, and pass the file with --item-tokens:\n"
    "    from recbole.config import Config\n"
    "    from recbole.data import create_dataset\n"
    '    dataset = create_dataset(Config(model="SASRec", dataset=NAME, config_file_list=[AS IN TRAINING]))\n'
    '    open("items.txt", "w").write("\\n".join(dataset.field2id_token[dataset.iid_field][1:]))'
)
# What pandas reads as a missing value, and RecBole therefore as no item.
_MISSING = {"", "NA", "N/A", "n/a", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "None", "#N/A", "#NA", "<NA>",
            "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN", "#N/A N/A"}  # fmt: skip
_UNFILTERED = {
    "rm_dup_inter": (None,),
    "val_interval": (None,),
    "user_inter_num_interval": (None, "[0,inf)"),
    "item_inter_num_interval": (None, "[0,inf)"),
}


def tokens_from_file(path: str | Path) -> list[str]:
    """RecBole's item tokens, one a line in its order, with or without the padding token in front.

    Raises:
        DataError: no such file, an empty line, or a token twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected RecBole's item tokens, one a line")
    tokens = path.read_text(encoding="utf-8").splitlines()
    tokens = tokens[1:] if tokens[:1] == [PADDING] else tokens
    if not tokens or "" in tokens or len(set(tokens)) < len(tokens):
        what = "none" if not tokens else "an empty line" if "" in tokens else "a token more than once"
        raise DataError(f"{path}: expected RecBole's item tokens, one a line, each once; got {what}")
    return tokens


def tokens_from_inter(prefix: Path, config: Mapping[str, Any]) -> list[str]:
    """RecBole's item tokens in its order, from the files it read.

    Args:
        prefix: FOLDER/X of the atomic files FOLDER/X.inter or FOLDER/X.NAME.inter.
        config: the settings of the checkpoint.

    Raises:
        DataError: no settings, settings under which the files alone do not tell the order, missing files or columns.
    """
    names = config.get("benchmark_filename")
    problems = [] if "benchmark_filename" in config else ["the checkpoint has no settings that tell how it read them"]
    if config.get("seq_len"):
        problems.append(f"seq_len={config['seq_len']!r} cut its histories")
    if names is not None and not isinstance(names, list):
        problems.append(f"benchmark_filename={names!r} is no list of names")
    if not names:
        problems += [f"{key}={config[key]!r} filtered them" for key, no in _UNFILTERED.items()
                     if config.get(key) not in no]  # fmt: skip
    loaded = config.get("load_col")
    for kind in ("item", "user"):
        if (loaded is None or kind in loaded) and prefix.with_name(f"{prefix.name}.{kind}").is_file():
            problems.append(f"{prefix.name}.{kind} took part in it")
    if problems:
        raise DataError(f"{prefix}: its files alone do not tell RecBole's order: {'; '.join(problems)}. {ASK_RECBOLE}")

    item = config.get("ITEM_ID_FIELD") or "item_id"
    fields = list(dict.fromkeys([item, *(config.get("alias_of_item_id") or [])]))
    suffixes = [f".{name}.inter" for name in names] if names else [".inter"]
    tables = [_read(prefix.with_name(prefix.name + suffix), fields, config) for suffix in suffixes]
    tokens = pl.concat(table[field] for field in fields for table in tables).unique(maintain_order=True)
    strange = [token for token in tokens if token is None or token in _MISSING or '"' in token]
    if strange:
        raise DataError(f"{prefix}: RecBole reads tokens such as {strange[:3]} as something else. {ASK_RECBOLE}")
    return tokens.to_list()


def items_with_texts(stored: np.ndarray, features: np.ndarray) -> list[list[int]]:
    """The items whose vector each row of a UniSRec checkpoint holds, padding left out.

    stored: [rows, T] ``plm_embedding`` of the checkpoint, row 0 padding. features: [items, T].

    Raises:
        DataError: a vector that no item has.
    """
    places: dict[bytes, list[int]] = {}
    for place, vector in enumerate(np.ascontiguousarray(features, dtype=np.float32)):
        places.setdefault(vector.tobytes(), []).append(place)
    found = [places.get(vector.tobytes(), []) for vector in np.ascontiguousarray(stored[1:], dtype=np.float32)]
    if none := sum(not each for each in found):
        raise DataError(
            f"{none:,} of the {len(found):,} text vectors in the checkpoint are of no item in the features: give the "
            "feature file that the checkpoint was trained with"
        )
    return found


def tokens_from_texts(stored: np.ndarray, features: np.ndarray) -> list[str]:
    """UniSRec's item tokens, which are rows of the features, by the text vectors of the checkpoint.

    Raises:
        DataError: a vector that no item has, or that several have.
    """
    found = items_with_texts(stored, features)
    if several := sum(len(each) > 1 for each in found):
        raise DataError(
            f"{several:,} of the {len(found):,} items of the checkpoint share their text vector with another one, so "
            f"the vectors do not tell them apart: give the .inter files beside the features, or {ASK_RECBOLE}"
        )
    return [str(each[0]) for each in found]


def indices_of(tokens: Sequence[str], num_items: int, source: str) -> np.ndarray:
    """Item tokens that are indices, as UniSRec's are: [n] int64.

    Raises:
        DataError: tokens that are no index of ``num_items`` items.
    """
    wrong = [token for token in tokens if not token.isdecimal() or int(token) >= num_items]
    if wrong:
        raise DataError(
            f"{source}: expected item tokens to be indices 0 to {num_items - 1} of item2index, but {len(wrong):,} of "
            f"{len(tokens):,} are others, such as {wrong[:3]}; take all files from one release of the dataset"
        )
    return np.array([int(token) for token in tokens], dtype=np.int64)


def check_texts(stored: np.ndarray, features: np.ndarray, indices: np.ndarray) -> None:
    """Raises DataError where the text vectors in a checkpoint are not those of the items they are said to be.

    stored: [rows, T], row 0 padding. features: [items, T]. indices: [rows - 1] row of the features for each.
    """
    named = features[indices]
    fits = stored[1:].shape == named.shape
    wrong = np.count_nonzero((stored[1:] != named).any(axis=1)) if fits else len(indices)
    if wrong:
        raise DataError(
            f"{wrong:,} of {len(indices):,} rows of the checkpoint have another text vector than the item they are "
            f"said to be: the order or the features are of another dataset than the checkpoint. {ASK_RECBOLE}"
        )


def _read(path: Path, fields: Sequence[str], config: Mapping[str, Any]) -> dict[str, pl.Series]:
    """The tokens of each item column of a .inter file, from its first row to its last."""
    if not path.is_file():
        raise DataError(f"{path}: no such file, but the checkpoint's settings say that RecBole read it")
    separator, blank = config.get("field_separator") or "\t", config.get("seq_separator") or " "
    try:
        table = pl.read_csv(path, separator=separator, quote_char=None, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: expected columns separated by {separator!r}; {error}") from error
    headers = {name.partition(":")[0]: name for name in table.columns}
    if missing := [field for field in fields if field not in headers]:
        raise DataError(f"{path}: expected columns {', '.join(fields)}, but {', '.join(missing)} missing")
    columns = {field: table[headers[field]] for field in fields}
    for field, column in columns.items():
        if headers[field].endswith("_seq"):
            tokens = column.fill_null("").str.split(blank).explode()
            columns[field] = tokens.filter(tokens != "")
    return columns
