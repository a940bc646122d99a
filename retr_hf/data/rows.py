"""Prepared domains as rows of `datasets`, for trainers that read those: several domains as one, and a row's target."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from .domain import PreparedDomain
from .mixture import Mixture
from .schema import DOMAIN, ITEM_IDS, LABELS, TIMESTAMPS, TRAIN

if TYPE_CHECKING:
    import datasets

Rows: TypeAlias = "datasets.Dataset | datasets.IterableDataset"


def last_as_label(rows: "Rows") -> "Rows":
    """Rows of ``validation`` or ``test`` -> rows whose target stands apart, as an evaluation reads them.

    ``item_ids`` is then the history alone, and ``labels`` (int) its target; ``timestamps`` keeps the target's, last.
    Map-style or streaming.
    """

    def cut(batch: dict[str, list]) -> dict[str, list]:
        histories = batch[ITEM_IDS]
        return {ITEM_IDS: [ids[:-1] for ids in histories], LABELS: [ids[-1] for ids in histories]}

    return rows.map(cut, batched=True)


def interleaved(
    domains: Sequence[PreparedDomain],
    split: str = TRAIN,
    *,
    streaming: bool = False,
    temperature: float = 1.0,
    cap: int | None = None,
    times: bool = False,
    seed: int = 0,
    buffer_size: int = 10_000,
) -> "Rows":
    """One split of several domains as one shuffled dataset of rows ``domain``, ``item_ids`` and, asked for, timestamps.

    Rows are drawn from a domain at the share that ``Mixture`` gives it (temperature 1: in proportion to its size),
    until every domain was read to its end; a small one may then begin anew. The same arguments give the same order,
    which ``set_epoch`` of a streamed one (Trainer calls it) changes from epoch to epoch.

    Args:
        domains: opened domains; ``domain`` of a row is the name of one.
        streaming: read rows from the files as they are asked for; shuffled in a buffer of ``buffer_size`` rows.
        temperature, cap: as of ``Mixture``.
        times: bring timestamps, which all domains must then have.

    NOTE: ``Mixture``, which our own loop reads, has exact quotas and no repeats within an epoch; here they are drawn.
    """
    from datasets import Features, List, Value, interleave_datasets, load_dataset

    columns = [ITEM_IDS, *([TIMESTAMPS] if times else [])]
    parts = []
    for domain in domains:
        rows = load_dataset(str(domain.path), split=split, streaming=streaming).select_columns(columns)
        types = {ITEM_IDS: List(Value("int32")), TIMESTAMPS: List(Value("int64")), DOMAIN: Value("string")}
        features = Features({name: types[name] for name in (*columns, DOMAIN)})
        named = {"fn_kwargs": {"name": domain.name}, "batched": True, "features": features}
        parts.append(rows.map(_with_domain, **named))
    quotas = Mixture([domain.statistics[f"{split}_rows"] for domain in domains], temperature, cap).quotas
    shares = (quotas / quotas.sum()).tolist()
    mixed = interleave_datasets(parts, probabilities=shares, seed=seed, stopping_strategy="all_exhausted")
    return mixed.shuffle(seed=seed, buffer_size=buffer_size) if streaming else mixed.shuffle(seed=seed)


def _with_domain(batch: dict[str, list], name: str) -> dict[str, list]:
    return {DOMAIN: [name] * len(batch[ITEM_IDS])}
