"""What a model costs, against hand arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from retr_hf.benchmark.arithmetic import body_operations
from retr_hf.cost import inference_cost, with_costs
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model_section import model_config
from retr_hf.report.results import ResultRow

N, D, ITEMS = 20, 16, 50  # history, width, catalogue
IDS = {"item_features": "id", "score": "dot", "hidden_size": D, "intermediate_size": 32, "num_attention_heads": 2}


def config(**values):
    of_body = {} if "model_type" not in values else {"intermediate_size", "num_attention_heads"}
    given = {key: value for key, value in IDS.items() if key not in of_body}
    return model_config(vocab_size=ITEMS + 1, max_position_embeddings=N, **given | values)


def operations(config):
    cost = inference_cost(config, ITEMS)
    return round(cost["body GFLOPs"] * 1e9), round(cost["scoring GFLOPs"] * 1e9)


def test_plain_attention_and_what_the_router_adds():
    plain, routed = config(router="none"), config(router="pathway")
    products = body_operations(plain, np.array([N]), last_only=True)
    assert operations(plain) == (products, 2 * D * (ITEMS + 1))
    # The router's three MLPs of inner width D / 4 (two of them end in one number), and the running mean, which is a
    # product with an N x N matrix: in the first block for all tokens, in the last for one.
    mlps = 8 * D * (D // 4) + 4 * (D // 4)
    assert operations(routed)[0] - products == (N + 1) * mlps + 2 * D * (N * N + N)
    assert operations(config(router="random"))[0] == products


def test_networks_of_their_own():
    gates = 3 * (2 * D * D + 2 * D * D)  # of a GRU: three, from the input and from the state
    assert operations(config(model_type="gru4rec")) == (N * gates, 2 * D * (ITEMS + 1))
    scored = config(model_type="caser", output_table=True, item_bias=True)
    assert operations(scored)[1] == 2 * (D + 1) * (ITEMS + 1)


@pytest.mark.parametrize(
    "values",
    [
        {"attention": "low_rank"}, {"attention": "local_global"}, {"attention": "log_sparse"}, {"attention": "strided"},
        {"attention": "denoising"}, {"attention": "modulating"}, {"model_type": "sine", "objective": "softmax"},
        {"direction": "bidirectional", "router_context": "global", "objective": "softmax", "output_transform": True},
        {"item_features": "text+id", "score": "cosine", "text_size": 24, "text_path": True, "repeat_term": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_family_is_counted(values):
    asked = config(**values)
    cost = inference_cost(asked, ITEMS)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(asked)
    assert cost["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert cost["item parameters"] == (ITEMS + 1) * D
    assert cost["items read"] == N - (asked.direction == "bidirectional")
    assert cost["body GFLOPs"] > 0
    width = D + 24 if asked.text_path else D
    assert cost["scoring GFLOPs"] == 2 * width * (ITEMS + 1) / 1e9


def test_rows_that_do_not_say_it_are_told_by_their_model_folder(tmp_path):
    model = AutoModelForSequenceClassification.from_config(config())
    model.save_pretrained(tmp_path / "run")
    ItemCatalog([f"item {n}" for n in range(ITEMS)], [""] * ITEMS).save_pretrained(tmp_path / "run")
    row = ResultRow(
        recipe="r", system="RETR", domain="shop", sources=[], split="test", protocol="full", candidates=ITEMS,
        metrics={"MRR": 0.1}, num_users=9, seed=0, synthetic=False, date="2024-05-13", model=str(tmp_path / "run"),
        settings={"router": "pathway"},
    )  # fmt: skip
    (tmp_path / "other").mkdir()
    for name, text in {"config.json": '{"model_type": "recguru"}', "catalog.json": '{"num_items": 5}'}.items():
        (tmp_path / "other" / name).write_text(text)
    strangers = [replace(row, model=model) for model in (None, str(tmp_path / "gone"), str(tmp_path / "other"))]
    told, said, *strange = with_costs([row, replace(row, settings={"parameters": 7}), *strangers])
    assert told.settings == {"router": "pathway"} | inference_cost(model.config, ITEMS)
    assert said.settings == {"parameters": 7} and strange == strangers
