"""Exported programs: they answer as the eager model does at sizes they were not exported with, in both formats."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from retr_hf.errors import RetrError
from retr_hf.export.programs import Difference, item_difference, programs_of, trial_histories, user_difference
from retr_hf.export.runners import open_program
from retr_hf.export.towers import ItemTower, UserTower
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model_section import model_config

ITEMS, TEXT, LENGTH = 12, 6, 7


def build(**changes):
    torch.manual_seed(0)
    settings = dict(vocab_size=ITEMS + 1, text_size=TEXT, max_position_embeddings=LENGTH, num_experts=2) | changes
    config = RetrConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, initializer_range=0.4, **settings
    )  # fmt: skip
    model = RetrForSequentialRecommendation(config).eval()
    if model.transition_memory is not None:
        model.transition_memory.count(torch.randint(1, ITEMS + 1, (60,)).numpy(), range(0, 61, 6))
    return model


def texts(model):
    table = torch.randn(ITEMS + 1, TEXT, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table if model.config.uses_text else None


@pytest.fixture(
    scope="module",
    params=[
        # ONNX of this one is what tests/scripts/test_export_script.py serves from.
        (
            ("torch",),
            dict(item_features="text+id", text_path=True, repeat_term=True, score_gain=1.0, transition_memory=3),
        ),
        (
            ("onnx", "torch"),
            dict(item_features="id", score="dot", router="random", router_init_keep=0.6, positions_from="last"),
        ),
    ],
    ids=["everything", "ids"],
)
def exported(request, tmp_path_factory):
    """A model, its texts, its item table and the files of both towers."""
    formats, settings = request.param
    model, folder = build(**settings), tmp_path_factory.mktemp("programs")
    towers = {"user": UserTower(model), "item": ItemTower(model)}
    files = {name: list(programs_of(tower, folder, name, formats)) for name, tower in towers.items()}
    text = texts(model)
    return model, text, model.encode_catalog(text), files


def test_towers_answer_as_the_eager_model(exported):
    model, text, table, files = exported
    differences = [user_difference(open_program(path), model, table) for path in files["user"]]
    differences += [item_difference(open_program(path), model, text) for path in files["item"]]
    assert len(differences) >= 2 and all(each.largest < 1e-5 * each.scale for each in differences), differences


def test_products_and_additions_are_the_scores_of_the_model(exported):
    model, text, table, files = exported
    items = {} if text is None else {"text_embeddings": text.numpy()}
    items |= {"item_ids": torch.arange(ITEMS + 1).numpy()} if model.config.uses_ids else {}
    for user_tower, item_tower in zip(*(map(open_program, files[name]) for name in ("user", "item")), strict=True):
        made = item_tower(**items)
        for inputs in trial_histories(model, ITEMS + 1):
            answer = user_tower(**{name: each.numpy() for name, each in inputs.items()}, item_embeddings=made["table"])
            scores = torch.from_numpy(answer["queries"] @ made["candidates"].T)
            if "rows" in answer:
                scores.scatter_add_(1, torch.from_numpy(answer["rows"]), torch.from_numpy(answer["added"]))
            with torch.no_grad():
                logits = model(**inputs, item_embeddings=table).logits
            torch.testing.assert_close(scores[:, 1:], logits[:, 1:], rtol=1e-5, atol=1e-4)


def test_a_program_holds_its_own_weights_and_no_path_of_this_machine(exported):
    *_, files = exported
    assert not [path.name for paths in files.values() for path in paths if b"retr_hf/model" in path.read_bytes()]
    weights = {name: set(torch.export.load(paths[-1]).state_dict) for name, paths in files.items()}
    assert not [each for each in weights["user"] if "embed_tokens" in each or "item_adaptor" in each]
    assert not [each for each in weights["item"] if "layers" in each or "embed_positions" in each]


BERT4REC = dict(item_features="id", score="dot", router="none", direction="bidirectional", item_bias=True)


@pytest.mark.parametrize(
    "settings",
    [
        BERT4REC | {"output_transform": True},
        {"model_type": "caser", "caser_length": 3, "output_table": True, "item_bias": True},
        {"model_type": "sine", "num_prototypes": 6},
    ],
    ids=["bert4rec", "caser", "sine"],
)
def test_every_network_can_be_exported(settings, tmp_path):
    """Also the item table of those whose scoring vectors and biases stand beside what is read."""
    model = build_any(**settings) if "model_type" in settings else build(**settings)
    table, towers = model.encode_catalog(), {"user": UserTower(model), "item": ItemTower(model)}
    paths = {name: next(programs_of(tower, tmp_path, name, ("torch",))) for name, tower in towers.items()}
    user_difference(open_program(paths["user"]), model, table).check("user")
    item_difference(open_program(paths["item"]), model, None).check("item")
    weights = {name: " ".join(torch.export.load(path).state_dict) for name, path in paths.items()}
    assert not [name for name in ("embed_tokens", "item_bias", "output_table") if name in weights["user"]]
    assert not [name for name in ("layers", "network", "embed_mask") if name in weights["item"]]


def test_a_recurrent_network_is_refused():
    with pytest.raises(ValueError, match="gru4rec model is recurrent.*serve it with Recommender"):
        UserTower(build_any("gru4rec"))


def build_any(model_type, **changes):
    torch.manual_seed(0)
    settings = dict(item_features="id", score="dot", hidden_size=8, vocab_size=ITEMS + 1) | changes
    config = model_config(model_type=model_type, max_position_embeddings=LENGTH, initializer_range=0.4, **settings)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "low_rank"},
        {"attention": "local_global", "local_type": "adaptive"},
        {"attention": "strided", "router": "pathway", "router_context": "global", "every_step": False},
        {"attention": "denoising"},
        {"attention": "modulating", "modulating_marks": 3, "modulating_delta": "next", "modulating_weight": 0.1},
    ],
    ids=lambda settings: settings["attention"],
)
@pytest.mark.slow
def test_every_attention_can_be_exported(settings, tmp_path):
    model = build(**{"router": "none"} | settings)
    (path,) = programs_of(UserTower(model), tmp_path, "user", ("torch",))
    difference = user_difference(open_program(path), model, model.encode_catalog(texts(model)))
    assert difference.largest < 1e-5 * difference.scale


def test_a_wrong_program_is_found():
    model = build()
    table = model.encode_catalog(texts(model))

    def eager(**inputs):
        with torch.no_grad():
            queries = model.encode_users(**{name: torch.from_numpy(each) for name, each in inputs.items()})
        return {"queries": queries.numpy()}

    assert user_difference(eager, model, table).check("right").largest == 0
    shifted = user_difference(lambda **inputs: {"queries": eager(**inputs)["queries"] + 0.5}, model, table)
    assert shifted.largest == pytest.approx(0.5)
    for wrong in (
        shifted,
        user_difference(lambda **inputs: {"queries": eager(**inputs)["queries"][:1]}, model, table),
        user_difference(lambda **inputs: {"queries": eager(**inputs)["queries"] * float("nan")}, model, table),
        user_difference(lambda **inputs: eager(**inputs) | {"rows": inputs["input_ids"]}, model, table),
    ):
        with pytest.raises(RetrError, match="differs from the eager model"):
            wrong.check("user_tower.onnx")


def test_rounding_is_measured_against_the_numbers():
    Difference(0.01, 1000.0).check("large numbers")
    with pytest.raises(RetrError):
        Difference(0.01, 1.0).check("small numbers")


def test_what_cannot_be_a_program_is_refused():
    with pytest.raises(ValueError, match="router_sampling=True draws the routes at random"):
        UserTower(build(router_sampling=True))
    model = build()
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="'flex_attention' is no part of a program"):
        UserTower(model)


def test_the_model_is_left_as_it_was():
    model = build()
    before = set(model.state_dict())
    UserTower(model), ItemTower(model)
    assert set(model.state_dict()) == before
