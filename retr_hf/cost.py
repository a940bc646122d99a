"""What a model costs: its weights, and the operations of recommending to one user, by torch's own counter.

The user has a history as long as the model reads, the longest and dearest; only the last step is asked, as in ranking
and serving. torch's FlopCounterMode counts the operations of matrix products and convolutions, two for a
multiplication with its addition, over the whole square where attention is causal; norms, softmax, gates, gathers and
activations it does not count. Counted is a model of fresh weights on the CPU: shapes decide.

The item table is made once for a catalogue and not for a user: encoding its texts is not counted.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification

from .model.configuration_retr import RetrConfig
from .model.item_catalog import CATALOG_FILE
from .model_section import FAMILIES
from .report.results import ResultRow

PARAMETERS, OF_ITEMS = "parameters", "item parameters"
ITEMS_READ, BODY, SCORING = "items read", "body GFLOPs", "scoring GFLOPs"


@torch.no_grad()
def inference_cost(config: RetrConfig, num_items: int) -> dict[str, int | float]:
    """What a model of this config costs on a catalogue; the names of the figures are the keys.

    Args:
        config: of a recommendation head, of any family that transformers' Auto classes know.
        num_items: items of the catalogue, without padding.

    Returns:
        parameters: all weights. item parameters: those of them that belong to one item (id table, output table, bias).
        items read: length N of the history. body GFLOPs: 10^9 operations from the history to the query vector.
        scoring GFLOPs: 10^9 operations of the query's product with every item of the catalogue.
    """
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    length = config.max_position_embeddings - (config.direction == "bidirectional")  # room for the [mask]
    ids = torch.arange(2) if config.uses_ids else None  # padding and an item: how many there are, the body does not see
    texts = torch.zeros(2, config.text_size) if config.uses_text else None
    table = model.encode_items(ids, texts)
    history = torch.ones(1, length, dtype=torch.long)
    times = {"times": torch.zeros_like(history)} if config.reads_times else {}
    # As products and not as one kernel: a kernel is counted on some devices and not on others.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as body:
        query = model.encode_users(
            history,
            sequence_ends=torch.tensor([length - 1]),
            length_groups=((1, length),),
            item_embeddings=table,
            **times,
        )
    candidates = torch.empty(num_items + 1, query.shape[1], device="meta")  # with the padding row
    with FlopCounterMode(display=False) as scoring:
        query.to("meta") @ candidates.T
    tables = (model.get_input_embeddings(), model.output_table, model.item_bias)
    return {
        PARAMETERS: sum(weight.numel() for weight in model.parameters()),
        OF_ITEMS: sum(table.weight.numel() for table in tables if table is not None),
        ITEMS_READ: length,
        BODY: body.get_total_flops() / 1e9,
        SCORING: scoring.get_total_flops() / 1e9,
    }


def with_costs(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Rows with the cost of their models in ``settings``: of those that do not say it by the model folder that they
    name, as it is today; those without a folder of ours stay as they are."""
    known: dict[str | None, dict] = {}
    return [
        row if PARAMETERS in row.settings else replace(row, settings=row.settings | _cost_of(row.model, known))
        for row in rows
    ]


def _cost_of(folder: str | None, known: dict[str | None, dict]) -> dict[str, int | float]:
    if folder not in known:
        files = [Path(folder or "", name) for name in ("config.json", CATALOG_FILE)]
        told = [json.loads(file.read_text(encoding="utf-8")) for file in files if folder and file.is_file()]
        ours = len(told) == 2 and told[0].get("model_type") in FAMILIES
        known[folder] = inference_cost(AutoConfig.from_pretrained(folder), told[1]["num_items"]) if ours else {}
    return known[folder]
