"""Sequential recommendation for the Hugging Face stack.

Public names are loaded when they are first used, so that ``import retr_hf`` (and the data and report wings, which need
no torch) stay quick; transformers' Auto classes and pipelines learn of them nevertheless (``registration``).
"""

import importlib
from typing import TYPE_CHECKING, Any

from .registration import register
from .version import __version__

if TYPE_CHECKING:
    from .model.configuration_retr import RetrConfig
    from .model.item_catalog import ItemCatalog
    from .model.modeling_retr import (
        RetrForPreTraining,
        RetrForSequentialRecommendation,
        RetrModel,
        RetrPreTrainedModel,
    )
    from .model.pathway import PathwayRouter
    from .model.pipeline_retr import SequentialRecommendationPipeline
    from .model.processing_retr import RetrProcessor
    from .model.recommender import Recommender

_MODULES = {  # public name -> the module that holds it
    "RetrConfig": ".model.configuration_retr",
    "RetrPreTrainedModel": ".model.modeling_retr",
    "RetrModel": ".model.modeling_retr",
    "RetrForPreTraining": ".model.modeling_retr",
    "RetrForSequentialRecommendation": ".model.modeling_retr",
    "PathwayRouter": ".model.pathway",
    "RetrProcessor": ".model.processing_retr",
    "ItemCatalog": ".model.item_catalog",
    "Recommender": ".model.recommender",
    "SequentialRecommendationPipeline": ".model.pipeline_retr",
}

__all__ = [
    "ItemCatalog",
    "PathwayRouter",
    "Recommender",
    "RetrConfig",
    "RetrForPreTraining",
    "RetrForSequentialRecommendation",
    "RetrModel",
    "RetrPreTrainedModel",
    "RetrProcessor",
    "SequentialRecommendationPipeline",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name], __name__), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
