"""Domains of the behaviours on the pathway of a trained model, and of those off it: inputs to train on anew.

Yao et al., *Recommender Transformers with Behavior Pathways*, WWW 2024, appendix A.1: RETR is trained, each user's
captured pathway taken, and RETR and SASRec retrained on it alone, SASRec on what is off it too. Of each history:

    NAME-whole         all of it: the control
    NAME-pathway       the behaviours that the route of a block keeps
    NAME-off-pathway   those that it drops
    NAME-random        as many as on the pathway, chosen by chance: what so many behaviours are worth
    NAME-off-random    the others, as many as off the pathway

The five have the same items, the same evaluated users, targets and sampled candidates: their results can be compared,
with one another and not with those of the domain itself. Only users with something on and something off the pathway
are evaluated, for a history that is empty in one of the five has no place in it.

What a history holds is decided by that history: no target of validation or test is routed, or seen by the route of
what stands before it. NOTE: in training every behaviour after the first is a target, and those that are left out of an
input are targets no longer: as in the paper, whose pathways are whole inputs. What is left in is decided by the route
of the behaviour itself, so a domain's training targets are chosen, its evaluated ones are not.
NOTE: what the model does not read, behaviours older than its longest history, is on none of the four, only in "whole".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from .data.domain import PreparedDomain, Sequences
from .data.prepare import write_domain
from .data.readers.raw import KIND, SEEN, SPLIT, RawDomain
from .data.schema import (
    INTERACTIONS_DIR,
    ITEM_ID,
    ITEM_IDS,
    PADDING_INDEX,
    PIVOTAL,
    PIVOTAL_DIR,
    SPLITS,
    TEXT,
    TIMESTAMPS,
    TRAIN,
    USER_ID,
)
from .errors import DataError
from .evaluation.histories import routings
from .model.item_catalog import ITEMS_FILE
from .model.processing_retr import check_catalog
from .model.text_whitening import text_table

INPUTS = ("whole", "pathway", "off-pathway", "random", "off-random")


class Routed(NamedTuple):
    """A split whose histories were routed.

    users: raw ids [R]. sequences: rows of all behaviours [total], the last of evaluated ones their target.
    read: bool [total], what the model reads of the histories. kept: bool [total], what is on the pathway.
    """

    users: list[str]
    sequences: Sequences
    read: np.ndarray
    kept: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """Row of each behaviour, int64 [total]."""
        return np.repeat(np.arange(len(self.sequences)), self.sequences.lengths)

    def count(self, marked: np.ndarray) -> np.ndarray:
        """How many behaviours of each row are marked, int64 [R]; marked: bool [total]."""
        return np.bincount(self.owner[marked], minlength=len(self.sequences))


def write_pathway_inputs(
    model,
    weights: Path,
    domain: PreparedDomain,
    output: str | Path,
    block: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Routes the histories of a domain and writes ``output/NAME-INPUT``, a prepared domain each.

    Args:
        model: a recommendation head with a pathway router and causal context, that reads this catalogue.
        weights: folder of its config and weights, whose hashes go into the provenance.
        block: whose route is taken, from 1; None is the last: with hierarchical routes what it keeps, all keep.
        seed: of the choice by chance.
        overwrite: replace other domains of these names.

    Returns:
        input -> folder. A domain that is there already, made of the same, is left alone.

    Raises:
        DataError: a model without such a router or block; no user has something on and something off the pathway.
        ValueError: another catalogue.
    """
    config, options = model.config, domain.provenance["options"]
    block = config.num_hidden_layers if block is None else block
    if config.router != "pathway" or config.router_context != "causal":
        raise DataError(
            f"expected a model with a causal pathway router, came router={config.router!r}, router_context="
            f"{config.router_context!r}: the route of a training history would see the targets in it"
        )
    if not 1 <= block <= config.num_hidden_layers:
        raise DataError(f"block {block}: expected one of the model's, 1 to {config.num_hidden_layers}")
    catalog = domain.catalog()
    check_catalog(config, catalog)
    items = model.encode_catalog(text_table(config, catalog))
    splits = {split: _routed(model, items, domain, split, block - 1) for split in SPLITS}
    chance = _chosen_by_chance(splits, seed)

    folders = {}
    ids = pa.array(catalog.item_ids)
    table = pl.DataFrame({ITEM_ID: catalog.item_ids, TEXT: catalog.texts})
    inputs = [domain.path / INTERACTIONS_DIR / f"{split}.parquet" for split in SPLITS] + [domain.path / ITEMS_FILE]
    inputs += sorted([weights / "config.json", *weights.glob("*.safetensors")])
    for kind in INPUTS:
        chosen = {split: _chosen(routed, kind, chance[split]) for split, routed in splits.items()}
        raw = RawDomain(
            pl.concat(_frames(domain, splits, chosen, ids), how="diagonal"),
            table,
            reader=domain.provenance["reader"],
            inputs=inputs,
            options={"of domain": domain.name, "histories": kind, "block": block, "seed of chance": seed},
            dropped=_left_out(splits, chosen),
            whole_catalogue=True,
        )
        folders[kind] = Path(output) / f"{domain.name}-{kind}"
        drawn = {"seed": options.get("seed", 0), "num_negatives": options.get("num_negatives", 100)}
        write_domain(raw, folders[kind], overwrite=overwrite, **drawn)
    return folders


def _routed(model, items, domain: PreparedDomain, split: str, block: int) -> Routed:
    """Routes of one split. A training row is a history whole; in the others the last behaviour is the target."""
    sequences = domain.split(split)
    if split == TRAIN:  # ``routings`` reads all but the last of a row: one that nobody reads takes its place
        ends, times = sequences.offsets[1:], sequences.timestamps
        longer = Sequences(
            np.insert(sequences.item_ids, ends, PADDING_INDEX),
            sequences.offsets + np.arange(len(sequences.offsets)),
            None if times is None else np.insert(times, ends, times[ends - 1]),
        )
        found = routings(model, items, longer, model.config.max_position_embeddings)
        places = found.places - (np.searchsorted(longer.offsets, found.places, side="right") - 1)
    else:
        found = routings(model, items, sequences, model.config.max_position_embeddings)
        places = found.places
    read, kept = (np.zeros(len(sequences.item_ids), dtype=bool) for _ in range(2))
    read[places] = True
    kept[places] = found.routes[block] > 0.5
    return Routed(domain.user_ids(split), sequences, read, kept)


def _chosen_by_chance(splits: dict[str, Routed], seed: int) -> dict[str, np.ndarray]:
    """As many behaviours of each history as are on its pathway: bool [total] of each split.

    A behaviour has one lot for all splits, so the history of training lies within that of the test, but for ties of
    their number.
    """
    names, codes = np.unique(np.concatenate([routed.users for routed in splits.values()]), return_inverse=True)
    lengths = np.concatenate([routed.sequences.lengths for routed in splits.values()])
    longest = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(longest, codes, lengths)
    start = np.cumsum(longest) - longest
    lots = np.random.default_rng(seed).random(longest.sum())

    chosen, first = {}, 0
    for split, routed in splits.items():
        user = codes[first : first + len(routed.sequences)]
        first += len(routed.sequences)
        places = np.flatnonzero(routed.read)
        owner = routed.owner[places]
        lot = lots[start[user[owner]] + places - routed.sequences.offsets[owner]]
        order = np.lexsort((lot, owner))
        counts = np.bincount(owner, minlength=len(routed.sequences))
        nth = np.arange(len(places)) - (np.cumsum(counts) - counts)[owner]  # owners ascend: so do those in order
        chosen[split] = np.zeros(len(routed.read), dtype=bool)
        chosen[split][places[order[nth < routed.count(routed.kept)[owner]]]] = True
    return chosen


def _chosen(routed: Routed, kind: str, chance: np.ndarray) -> np.ndarray:
    """What an input has of the histories, bool [total]."""
    marked = {"pathway": routed.kept, "random": chance}
    if kind == "whole":
        return np.ones(len(routed.read), dtype=bool)
    return marked[kind] if kind in marked else routed.read & ~marked[kind.removeprefix("off-")]


def _frames(
    domain: PreparedDomain, splits: dict[str, Routed], chosen: dict[str, np.ndarray], ids: pa.Array
) -> Iterator[pl.DataFrame]:
    """The rows of an input, and all that was touched, which no sampled candidate may be."""
    for split, routed in splits.items():
        marked, rows = chosen[split], routed.sequences
        if split != TRAIN:
            marked = marked.copy()
            marked[rows.offsets[1:] - 1] = True  # the target
        values = {ITEM_IDS: ids.take(pa.array(rows.item_ids - 1))}
        if rows.timestamps is not None:
            values[TIMESTAMPS] = pa.array(rows.timestamps)
        whole = {}
        if (domain.path / PIVOTAL_DIR).is_dir():
            pivotal, kinds = domain.pivotal(split)
            values[PIVOTAL] = pa.array(pivotal)
            whole = {} if kinds is None else {KIND: kinds}
        offsets = np.concatenate([[0], np.cumsum(routed.count(marked))])
        places = pa.array(np.flatnonzero(marked))
        lists = {name: pa.LargeListArray.from_arrays(offsets, column.take(places)) for name, column in values.items()}
        lists = {name: pl.from_arrow(column) for name, column in lists.items()}
        frame = pl.DataFrame({USER_ID: routed.users, **lists, **whole, SPLIT: [split] * len(rows)})
        yield frame if split == TRAIN else frame.filter(_evaluated(routed))
        everything = pl.from_arrow(pa.LargeListArray.from_arrays(rows.offsets, values[ITEM_IDS]))
        yield pl.DataFrame({USER_ID: routed.users, ITEM_IDS: everything, SPLIT: [SEEN] * len(rows)})


def _evaluated(routed: Routed) -> np.ndarray:
    """Rows with something on the pathway and something off it, bool [R]."""
    kept, read = routed.count(routed.kept), routed.count(routed.read)
    some = (kept > 0) & (kept < read)
    if not some.any():
        raise DataError(
            f"the pathway holds {kept.sum():,} of {read.sum():,} behaviours, of no user some and not others: there is "
            "nothing to compare; take another block, or a model whose router has learned to drop (or to keep)"
        )
    return some


def _left_out(splits: dict[str, Routed], chosen: dict[str, np.ndarray]) -> dict[str, int]:
    """What the provenance tells: behaviours that are not in the training histories, and users without any."""
    train = splits[TRAIN]
    told = {
        "training_behaviours_left_out": int((~chosen[TRAIN]).sum()),
        "training_users_left_with_none": int((train.count(chosen[TRAIN]) == 0).sum()),
    }
    for split in (split for split in splits if split != TRAIN):
        kept, read = (splits[split].count(marked) for marked in (splits[split].kept, splits[split].read))
        told[f"{split}_users_with_nothing_on_the_pathway"] = int((kept == 0).sum())
        told[f"{split}_users_with_nothing_off_the_pathway"] = int((kept == read).sum())
    return told
