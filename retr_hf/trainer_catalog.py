"""The catalogue a model trains on under ``transformers.Trainer``: given once, in no batch."""

from pathlib import Path

import torch
from torch.utils.hooks import RemovableHandle

from .data.domain import PreparedDomain, load_domain
from .errors import DataError
from .model.head_retr import RetrHead
from .model.item_catalog import ItemCatalog
from .model.processing_retr import check_catalog
from .model.text_whitening import text_table


class CatalogConstants:
    """A forward pre-hook that adds tensors to a model's keyword arguments where the caller gives none.

    They go to a device once, and through no data loader: a loader would pin and copy them with every batch, or cut them
    in pieces for several devices.
    """

    def __init__(self, **tensors: torch.Tensor):
        self.tensors = {torch.device("cpu"): tensors}

    def __call__(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments of a call, with the constants on the device of its tensors."""
        device = next((value.device for value in kwargs.values() if isinstance(value, torch.Tensor)), module.device)
        if device not in self.tensors:
            held = next(iter(self.tensors.values()))
            self.tensors[device] = {name: tensor.to(device) for name, tensor in held.items()}
        missing = {name: tensor for name, tensor in self.tensors[device].items() if kwargs.get(name) is None}
        return args, kwargs | missing


def give_catalog(model: RetrHead, domain: PreparedDomain | str | Path) -> RemovableHandle:
    """Lets a model read a domain's items in every call, as ``text_embeddings`` and what else its config asks for.

    The config is stamped as training does: with the encoder of the text vectors, and with the catalogue of an id table.
    Nothing of it is saved with the weights. A catalogue given before is taken away.

    Args:
        model: ``RetrForSequentialRecommendation``; with ids, of ``vocab_size`` = items + 1.
        domain: a prepared domain, opened or its folder, embedded where the model reads text.

    Returns:
        The handle; its ``remove()`` takes the catalogue away again.

    Raises:
        ValueError: the model cannot read the catalogue (no vectors, another encoder, another catalogue or size).
        DataError: no prepared domain.
    """
    if isinstance(domain, str | Path):
        domain = load_domain(domain)
    if not isinstance(domain, PreparedDomain):
        came = type(domain).__name__
        raise DataError(f"expected a prepared domain (data.domain.load_domain opens it) or its folder, got {came}")
    config, catalog = model.config, domain.catalog()
    check_catalog(config, catalog)
    constants = {}
    if config.uses_text:
        constants["text_embeddings"] = text_table(config, catalog)
        _check_width(model, catalog, constants["text_embeddings"].shape[1])
        config.text_encoder = catalog.text_encoder
    if config.uses_ids:
        config.catalog_hash = catalog.hash
    if config.negative_sampling == "popularity":
        constants["item_counts"] = torch.from_numpy(domain.training_counts())
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, CatalogConstants):
            del model._forward_pre_hooks[key], model._forward_pre_hooks_with_kwargs[key]
    return model.register_forward_pre_hook(CatalogConstants(**constants), with_kwargs=True)


def _check_width(model: RetrHead, catalog: ItemCatalog, width: int) -> None:
    if width != model.config.text_size:
        raise ValueError(
            f"the text vectors ({catalog.text_encoder}) are {width} wide, the model reads {model.config.text_size}: "
            f"RetrConfig(text_size={width}), or embed the domain with the model's encoder"
        )
