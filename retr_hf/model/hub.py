"""What a saved folder carries beside weights, so that it opens where this package is not installed; and opening one.

``RetrConfig.save_pretrained``, which every model's calls, copies this flat folder of source files and names the class
of each of transformers' Auto classes. With the package installed its own classes are used, the copies are not read.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

if TYPE_CHECKING:  # transformers follows these lines: whichever file it fetches first, the others come along
    from .modeling_retr import RetrForSequentialRecommendation  # noqa: F401
    from .pipeline_retr import SequentialRecommendationPipeline  # noqa: F401
    from .processing_retr import RetrProcessor  # noqa: F401

TASK = "sequential-recommendation"
# One slot a class: AutoModel must not mean the body here and a head there. A next item is one of num_items classes of a
# sequence, so transformers' slot of that name is the recommendation head's.
AUTO_MAP = {
    "AutoConfig": "configuration_retr.RetrConfig",
    "AutoModel": "modeling_retr.RetrModel",
    "AutoModelForPreTraining": "modeling_retr.RetrForPreTraining",
    "AutoModelForSequenceClassification": "modeling_retr.RetrForSequentialRecommendation",
    "AutoProcessor": "processing_retr.RetrProcessor",
}
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_retr.SequentialRecommendationPipeline",
        "pt": ["AutoModelForSequenceClassification"],
        "type": "text",
    }
}
HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
_PATTERNS = ["*.json", "*.yaml", "*.safetensors", "items.parquet", "README.md"]


def installed() -> bool:
    """Whether this is the package, and not its copy beside a model."""
    return __name__.startswith("retr_hf.")


def copy_code(folder: str | Path) -> None:
    """Copies the source files of this folder, all that a model needs, into a model folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in Path(__file__).parent.glob("*.py"):
        if file.name != "__init__.py":
            shutil.copyfile(file, folder / file.name)


def local_folder(name: str | Path, **hub_arguments) -> Path:
    """The folder of a model or a prepared domain: a path, or a Hub repository's snapshot (downloaded once, cached).

    hub_arguments: ``HUB_ARGUMENTS`` of ``huggingface_hub.snapshot_download``.

    Raises:
        ValueError: neither a folder here nor a repository that can be opened.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(str(name), allow_patterns=_PATTERNS, **hub_arguments))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name}: expected a folder, or the id of a repository on the Hub; there is no such folder here, and as a "
            f"repository it could not be opened ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
