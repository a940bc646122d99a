"""transformers' own tests of every model, run on ours: each way to read items, the body and both heads.

They come with the source distribution of the installed version, from which scripts/test.sh unpacks them; nothing of
theirs is in this repository. A test of theirs that cannot hold here is named below with the reason.
"""

import importlib
import inspect
import sys
import types
import unittest
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from retr_hf.model.attentions import ATTENTIONS
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.head_retr import RetrHead
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation, RetrModel

FOLDER = Path(sys.prefix) / f"transformers-{transformers.__version__}-tests"
ROWS, LENGTH, ITEMS, TEXT = 3, 7, 20, 12


def their(name: str) -> types.ModuleType:
    """A module of the unpacked tests."""
    if not (FOLDER / f"{name}.py").exists():
        pytest.skip(f"transformers' tests are not in {FOLDER}: scripts/test.sh unpacks them", allow_module_level=True)
    package = types.ModuleType("transformers_tests")
    package.__path__ = [str(FOLDER)]
    # The distribution has no subfolders of tests, from which these are imported.
    absent = {
        "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
        "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    }
    modules = {package.__name__: package}
    for path, contents in absent.items():
        for part in (path.split(".")[0], path):
            modules[f"{package.__name__}.{part}"] = types.ModuleType(part)
        vars(modules[f"{package.__name__}.{path}"]).update(contents)
    sys.modules.update(modules)
    return importlib.import_module(f"{package.__name__}.{name}")


ModelTesterMixin = their("test_modeling_common").ModelTesterMixin


class RetrTester:
    """What transformers' tests ask for a config and its inputs."""

    batch_size, seq_length = ROWS, LENGTH
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    is_training = True

    def __init__(self, item_features: str, **switches):
        self.item_features, self.switches = item_features, switches

    def get_config(self) -> RetrConfig:
        return RetrConfig(
            item_features=self.item_features,
            vocab_size=ITEMS,
            text_size=TEXT,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=24,
            max_position_embeddings=16,
            num_experts=3,
            hidden_dropout=0.1,
            attention_dropout=0.1,
            **self.switches,
        )

    def prepare_config_and_inputs_for_common(self):
        input_ids = torch.randint(1, ITEMS, (ROWS, LENGTH))
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        config = self.get_config()
        if config.reads_times:
            inputs["times"] = 1_500_000_000 + 40_000 * torch.arange(LENGTH).expand(ROWS, LENGTH) ** 2
        return config, inputs | self.texts()

    def texts(self) -> dict[str, torch.Tensor]:
        """The same texts at every call, where the model reads any."""
        seeded = torch.Generator().manual_seed(0)
        return {} if self.item_features == "id" else {"text_embeddings": torch.randn(ITEMS, TEXT, generator=seeded)}


class RetrCommonTests(ModelTesterMixin):
    """Their tests, ours to fit."""

    item_features: str
    switches: dict = {}
    test_can_init_all_missing_weights_before_2023 = True  # the test reads a model's year off a licence header

    def setUp(self):
        self.model_tester = RetrTester(self.item_features, **self.switches)
        # Several tests know from this table which class is the base.
        known = mock.patch.dict(MODEL_MAPPING_NAMES, {RetrConfig.model_type: RetrModel.__name__})
        known.start()
        self.addCleanup(known.stop)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = self.model_tester.texts() | super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if model_class is RetrForPreTraining:
            inputs["table_item_ids"] = torch.arange(ITEMS)
        if model_class is RetrForPreTraining or (return_labels and model_class is RetrForSequentialRecommendation):
            next_items = inputs["input_ids"].roll(-1, dims=1).index_fill(1, torch.tensor(LENGTH - 1), 0)
            inputs["labels"] = next_items.masked_fill(next_items == 0, -100)
        return inputs

    def check_training_gradient_checkpointing(self, *arguments, **options):
        if self.switches.get("attention") == "denoising":
            self.skipTest("refused: a second pass would draw other masks (antithetic.py)")
        super().check_training_gradient_checkpointing(*arguments, **options)

    def test_batching_equivalence(self):
        """Theirs forbids infinite outputs, and row 0 scores -inf on purpose: here the scores of real items alone."""
        scores = RetrHead.scores
        with mock.patch.object(RetrHead, "scores", lambda *inputs: scores(*inputs)[:, 1:]):
            super().test_batching_equivalence()


class ReadThroughText:
    """Items with a text are more than a row of an embedding."""

    def test_bc_torch_dtype(self):
        self.skipTest("slow, and IdTest shows it: how a dtype is spelt does not depend on what items are read through")

    def test_inputs_embeds(self):
        self.skipTest("looks vectors up in the id table: test_inputs_embeds_matches_input_ids asks encode_items")

    def test_inputs_embeds_matches_input_ids(self):
        """Theirs, with the vectors of encode_items."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            if "inputs_embeds" not in inspect.signature(model_class.forward).parameters:
                continue
            model = model_class(config).eval()
            given = self._prepare_for_class(inputs, model_class)
            table = model.encode_items(text_embeddings=given["text_embeddings"])
            wanted = model(**given)[0]
            inputs_embeds = model.base_model.look_up(given.pop("input_ids"), table)
            torch.testing.assert_close(model(inputs_embeds=inputs_embeds, **given)[0], wanted)


class IdTest(RetrCommonTests, unittest.TestCase):
    item_features = "id"
    all_model_classes = (RetrModel, RetrForSequentialRecommendation)


class TextTest(ReadThroughText, RetrCommonTests, unittest.TestCase):
    item_features = "text"
    all_model_classes = (RetrModel, RetrForSequentialRecommendation, RetrForPreTraining)
    test_resize_embeddings = False  # there is no id table

    def test_model_get_set_embeddings(self):
        self.skipTest("there is no id table")


class TextAndIdTest(ReadThroughText, RetrCommonTests, unittest.TestCase):
    item_features = "text+id"
    all_model_classes = (RetrModel, RetrForSequentialRecommendation)

    def test_resize_tokens_embeddings(self):
        """Theirs gives new ids and no new texts; here both tables grow."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config).eval()
            before = model.get_input_embeddings().weight.clone()
            model.resize_token_embeddings(ITEMS + 10)
            after = model.get_input_embeddings().weight
            self.assertEqual((model.config.vocab_size, len(after)), (ITEMS + 10, ITEMS + 10))
            self.assertTrue(torch.equal(after[:ITEMS], before))
            inputs["input_ids"][:, -2] = ITEMS + 9
            grown = inputs | {"text_embeddings": torch.randn(ITEMS + 10, TEXT)}
            self.assertEqual(len(model(**grown).item_embeddings), ITEMS + 10)
            model.resize_token_embeddings(ITEMS)


SWITCHES = [{"attention": attention} for attention in sorted(ATTENTIONS) if attention != "full"]
SWITCHES += [{"router": "none"}, {"router": "random"}, {"text_path": True, "repeat_term": True}]
SWITCHES += [{"transition_memory": 2}]
WHERE_A_SWITCH_SHOWS = [
    "test_all_tensors_are_parameter_or_buffer",
    "test_attention_outputs",
    "test_base_model_prefix_loads_base_weights",
    "test_batching_equivalence",
    "test_can_init_all_missing_weights",
    "test_correct_missing_keys",
    "test_hidden_states_output",
    "test_init_weights_can_init_buffers",
    "test_retain_grad_hidden_states_attentions",
    "test_training_gradient_checkpointing_use_reentrant_false",
]


@pytest.mark.parametrize("name", WHERE_A_SWITCH_SHOWS)
@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: "-".join(map(str, switches.values())))
def test_other_settings(switches, name):
    """Those of their tests whose answer an attention, a router or a term of the score could change."""
    case = (TextAndIdTest if "transition_memory" in switches else TextTest)(name)
    case.switches = switches
    case.debug()


del RetrCommonTests, ModelTesterMixin
