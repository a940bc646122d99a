"""UniSRec / RecBole atomic files: `X.train.inter`, `X.valid.inter`, `X.test.inter`, `X.text`, `X.item2index`.

A row of the .inter files is a user, a history (blank-separated tokens) and the next item; the training rows of a user
are all prefixes of one sequence. The authors' split is kept as it is; no k-core is applied; the catalogue is every item
of `X.item2index` in its order (so index = theirs + 1), or, without that file, of `X.text`, the tokens being raw ids.
`X.user2index` names the users where it is there.

Histories are cut by the authors at their last 50 items. The cut is undone where the files allow it: the *targets* of a
user's training rows, in order, are the sequence, so a history that ends as the sequence so far does is replaced by the
whole of it. On Scientific this gives the 59,427 interactions the paper counts instead of 59,384. What deviates
(prefixes that do not follow each other, a validation history that is not the training sequence, a test history that is
not the validation row) is kept as it stands in the file and counted.
"""

from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, ITEM_IDS, TEST, TEXT, TRAIN, USER_ID, VALIDATION
from .raw import SPLIT, RawDomain

_FILES = {TRAIN: "train.inter", VALIDATION: "valid.inter", TEST: "test.inter"}
_HISTORY = "item_id_list"


def read_atomic(folder: str | Path, dataset: str | None = None) -> RawDomain:
    """Reads a folder of atomic files, vectorised.

    Args:
        folder: holds the files of a dataset X.
        dataset: X; None finds it where the folder has one ``*.train.inter``.

    Raises:
        DataError: missing files or columns, indices that are not 0..n-1 or not known, doubled items or users.
    """
    folder = Path(folder)
    dataset = dataset or _only_dataset(folder)
    paths = {split: folder / f"{dataset}.{suffix}" for split, suffix in _FILES.items()}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise DataError(
            f"{folder}: expected {', '.join(path.name for path in paths.values())} (and {dataset}.text, "
            f"{dataset}.item2index); {', '.join(missing)} missing"
        )
    dropped: dict[str, int] = {}
    rows = {split: _read_inter(path) for split, path in paths.items()}
    for split in (VALIDATION, TEST):
        _check_unique(paths[split], rows[split][USER_ID], "user")
    cut = max(int(frame[_HISTORY].list.len().max()) for frame in rows.values())
    train = _training_sequences(rows[TRAIN], dropped)
    validation = _extend(rows[VALIDATION], train, cut, VALIDATION, dropped)
    test = _extend(rows[TEST], validation, cut, TEST, dropped)
    sequences = pl.concat(
        frame.with_columns(pl.lit(split).alias(SPLIT))
        for split, frame in ((TRAIN, train), (VALIDATION, validation), (TEST, test))
    )

    optional = {suffix: folder / f"{dataset}.{suffix}" for suffix in ("text", "item2index", "user2index")}
    there = {suffix: path for suffix, path in optional.items() if path.is_file()}
    items = (
        read_item_texts(there["text"])
        if "text" in there
        else pl.DataFrame(schema={ITEM_ID: pl.String, TEXT: pl.String})
    )
    if "item2index" in there:
        names = read_index(there["item2index"])
        known = pl.element().replace_strict(names["index"], names["raw"], default=None)
        sequences = sequences.with_columns(pl.col(ITEM_IDS).list.eval(known))
        _check_known(there["item2index"], sequences[ITEM_IDS].explode(), names.height)
        items = names.select(pl.col("raw").alias(ITEM_ID)).join(items, on=ITEM_ID, how="left", maintain_order="left")
    if "user2index" in there:
        names = read_index(there["user2index"])
        sequences = sequences.with_columns(pl.col(USER_ID).replace_strict(names["index"], names["raw"], default=None))
        _check_known(there["user2index"], sequences[USER_ID], names.height)
    return RawDomain(
        sequences=sequences,
        items=items.with_columns(pl.col(TEXT).fill_null("")),
        reader="atomic",
        inputs=[*paths.values(), *there.values()],
        options={"dataset": dataset},
        dropped=dropped,
        whole_catalogue=True,
    )


def _only_dataset(folder: Path) -> str:
    found = sorted(path.name.removesuffix(".train.inter") for path in folder.glob("*.train.inter"))
    if len(found) != 1:
        came = "none; pass the folder that holds the .inter files" if folder.is_dir() else "no such folder"
        if found:
            came = f"several datasets ({', '.join(found)}); name one with --dataset"
        raise DataError(f"{folder}: expected the atomic files (X.train.inter and siblings) of one dataset; got {came}")
    return found[0]


def _read(path: Path, columns: list[str], has_header: bool = True) -> pl.DataFrame:
    """A tab-separated file as strings; `name:type` headers lose their type."""
    try:
        table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False, has_header=has_header)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path}: expected {', '.join(columns)} separated by tabs, but the file is empty") from error
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: expected {', '.join(columns)} separated by tabs; {error}") from error
    if not has_header and table.width == len(columns):
        table.columns = columns
    table = table.rename({column: column.split(":")[0] for column in table.columns})
    if not set(columns) <= set(table.columns):
        raise DataError(
            f"{path}: expected columns {', '.join(columns)} separated by tabs, got {', '.join(table.columns)}; "
            "is this an atomic file of UniSRec or RecBole?"
        )
    table = table.select(columns)
    if table.is_empty() or (nulls := sum(table.select(pl.exclude(_HISTORY, TEXT)).null_count().row(0))):
        came = "no rows" if table.is_empty() else f"{nulls:,} empty fields"
        raise DataError(f"{path}: expected rows with {', '.join(columns)}; got {came}; write the file again")
    return table


def _read_inter(path: Path) -> pl.DataFrame:
    """user_id: String, item_id_list: List(String) (the history), item_id: String (the next item)."""
    table = _read(path, [USER_ID, _HISTORY, ITEM_ID])
    return table.with_columns(pl.col(_HISTORY).fill_null("").str.extract_all(r"\S+"))


def read_item_texts(path: Path) -> pl.DataFrame:
    """item_id: String, text: String, of an ``X.text``; raises DataError as ``read_atomic``."""
    items = _read(path, [ITEM_ID, TEXT])
    _check_unique(path, items[ITEM_ID], "item")
    return items


def read_index(path: Path) -> pl.DataFrame:
    """raw: String, index: String of an ``X.item2index``, in the order of the index, which runs from 0; raises DataError
    as ``read_atomic``."""
    table = _read(path, ["raw", "index"], has_header=False)
    _check_unique(path, table["raw"], "raw id")
    position = table["index"].cast(pl.Int64, strict=False)
    if position.sort().to_list() != list(range(table.height)):
        raise DataError(f"{path}: expected the indices 0 to {table.height - 1}, each once; got others; write it again")
    return table[position.arg_sort()]


def _training_sequences(rows: pl.DataFrame, dropped: dict[str, int]) -> pl.DataFrame:
    """All prefixes of every user -> one sequence a user: the first history, then the targets in order.

    Within a user the rows are ordered by the length of the history; those of one length (cut ones) by their order in
    the file, which lists the prefixes longest first or shortest first.
    """
    rows = rows.with_row_index("row").with_columns(pl.col(_HISTORY).list.len().cast(pl.Int64).alias("length"))
    step = rows.select(pl.col("length").diff().over(USER_ID).sign().sum()).item()
    rows = rows.sort("length", pl.col("row") if step >= 0 else -pl.col("row").cast(pl.Int64), maintain_order=True)
    follows = pl.col(_HISTORY).list.last().eq_missing(pl.col(ITEM_ID).shift()) & (pl.col("length").diff() <= 1)
    users = rows.group_by(USER_ID).agg(
        pl.col("row").min(),
        pl.concat_list(pl.col(_HISTORY).last(), pl.col(ITEM_ID).last()).alias("longest"),
        pl.concat_list(pl.col(_HISTORY).first(), pl.col(ITEM_ID).implode()).alias("rebuilt"),
        follows.slice(1).all().alias("follows"),
    )
    whole = pl.col("follows") & _ends_with("rebuilt", "longest")
    dropped["users_whose_training_rows_are_not_prefixes"] = users.select((~whole).sum()).item()
    dropped["train_histories_completed_beyond_the_cut"] = users.select(
        (whole & (_len("rebuilt") > _len("longest"))).sum()
    ).item()
    sequence = pl.when(whole).then("rebuilt").otherwise("longest").alias(ITEM_IDS)
    return users.sort("row").select(USER_ID, sequence)


def _extend(rows: pl.DataFrame, earlier: pl.DataFrame, cut: int, split: str, dropped: dict[str, int]) -> pl.DataFrame:
    """History and target of an evaluated split -> one sequence a user, on top of the uncut ``earlier`` sequence."""
    rows = rows.join(earlier, on=USER_ID, how="left", maintain_order="left")
    rows = rows.with_columns(pl.col(ITEM_IDS).fill_null([]))
    was_cut = (_len(_HISTORY) == cut) & (_len(ITEM_IDS) > cut)
    continues = _ends_with(ITEM_IDS, _HISTORY) & ((_len(_HISTORY) == _len(ITEM_IDS)) | was_cut)
    dropped[f"{split}_histories_not_the_earlier_sequence"] = rows.select((~continues).sum()).item()
    dropped[f"{split}_histories_completed_beyond_the_cut"] = rows.select((continues & was_cut).sum()).item()
    history = pl.when(continues).then(ITEM_IDS).otherwise(_HISTORY)
    return rows.select(USER_ID, pl.concat_list(history, ITEM_ID).alias(ITEM_IDS))


def _len(column: str) -> pl.Expr:
    return pl.col(column).list.len()


def _ends_with(sequence: str, ending: str) -> pl.Expr:
    return pl.col(sequence).list.tail(_len(ending)).list.join(" ") == pl.col(ending).list.join(" ")


def _check_unique(path: Path, ids: pl.Series, what: str) -> None:
    doubled = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if doubled.len():
        raise DataError(
            f"{path}: expected one row a {what}, but {doubled.len():,} have several, such as "
            f"{doubled.head(3).to_list()}; keep one row each"
        )


def _check_known(path: Path, names: pl.Series, known: int) -> None:
    if unknown := names.null_count():
        raise DataError(
            f"{path}: expected an index 0 to {known - 1} wherever the .inter files name one, but {unknown:,} entries "
            "are others; take all files from one release of the dataset"
        )
