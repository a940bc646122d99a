"""The model section of a recipe: which keys it may give, and the config they make.

``model.model_type`` chooses the family, ``retr`` where it is not given: RETR's body, or a baseline's network
(baseline_models.py). A key that means nothing to a family is a mistake in its recipes.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .baseline_models import BASELINES
from .model.configuration_retr import RetrConfig
from .training.recipe import OneOf

SHAPES = {  # what weights, or their meaning, depend on: fixed by a pre-trained model
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "input_norm"),
    *("attention", "num_experts", "text_whitening", "text_scale", "score"),
    *("router", "router_hidden_size", "hierarchical_route", "gumbel", "omega_activation"),
    *("modulating_marks", "modulating_delta"),
    *("low_rank_interests", "local_type", "local_heads", "local_window"),
    *("sparse_pattern", "sparse_stride", "sparse_summary", "log_sparse_window"),
    *("item_bias", "output_table", "direction", "positions_from", "output_transform"),
}
STAMPED = {"vocab_size", "text_size", "text_encoder", "catalog_hash", "max_position_embeddings"}
TOKENS = {"pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"}
# What a baseline has of RetrConfig: width, items, score and objective; its body is its own.
ANY_BODY = (
    *(
        "hidden_size",
        "hidden_dropout",
        "initializer_range",
        "item_features",
        "num_experts",
        "adaptor_dropout",
        "text_scale",
    ),
    *("objective", "num_negatives", "negative_sampling", "popularity_power", "gbce_calibration", "sce_bucket_size"),
    *("bpr_max_regularisation", "bpr_max_elu", "score", "temperature", "item_bias", "output_table", "every_step"),
)


def _own_fields(config: type, base: type) -> set[str]:
    return {field.name for field in fields(config)} - {field.name for field in fields(base)}


RETR_KEYS = tuple(sorted(_own_fields(RetrConfig, PreTrainedConfig) - STAMPED - TOKENS))
FAMILIES = {RetrConfig.model_type: (RetrConfig, RETR_KEYS)} | {
    config.model_type: (config, tuple(sorted({*ANY_BODY, *_own_fields(config, RetrConfig)}))) for config in BASELINES
}
MODEL_SECTION = OneOf("model_type", RetrConfig.model_type, FAMILIES)


def model_config(model_type: str = RetrConfig.model_type, **values) -> RetrConfig:
    """The config that a model section asks for: ``model_config(**recipe["model"], vocab_size=..., ...)``.

    Raises:
        huggingface_hub StrictDataclassError: see ``RetrConfig``.
    """
    return FAMILIES[model_type][0](**values)


def config_on_top(start: str | Path, model_type: str | None = None, **values) -> RetrConfig:
    """The config of a pre-trained model's folder ``start`` with the values of a model section in it, among which
    ``model_type`` says nothing new.

    Raises:
        huggingface_hub StrictDataclassError: see ``RetrConfig``.
    """
    kind = type(AutoConfig.from_pretrained(start))
    return kind.from_dict(kind.get_config_dict(start)[0] | values)


def same_family(config: RetrConfig, model: Mapping) -> bool:
    """Whether a model section is one of the family of a config."""
    return model.get("model_type", config.model_type) == config.model_type
