"""The folder of a converted model: config, weights, catalogue, and a card that says what it was made from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..data.domain_folder import replacing
from ..errors import DataError
from ..model.item_catalog import ItemCatalog, write_whole
from ..model.modeling_retr import RetrForSequentialRecommendation
from ..model.processing_retr import RetrProcessor
from ..model.recommender import open_model
from ..report.model_card import TAGS
from ..report.results import environment
from ..training.run_folder import RUN_FILE
from .safe_checkpoint import Checkpoint
from .their_settings import TheirSettings

CONVERTED_FROM = "converted_from"


@dataclass(frozen=True)
class Origin:
    """What a conversion was made from, for the card.

    system: "UniSRec" or "SASRec (RecBole)".
    checkpoint, settings: the file and what it says.
    scores: one sentence on how the scores stand to theirs.
    files: the other files it was made from.
    notes: sentences on what the conversion decided.
    sources: domains of an earlier pre-training, None where nobody says.
    """

    system: str
    checkpoint: Checkpoint
    settings: TheirSettings
    scores: str
    files: Sequence[Path] = ()
    notes: Sequence[str] = ()
    sources: Sequence[str] | None = None


def check_may_write(output: Path, overwrite: bool) -> None:
    """Raises DataError where ``output`` holds something; with ``overwrite`` a converted model may be replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    run = output / RUN_FILE
    ours = run.is_file() and CONVERTED_FROM in json.loads(run.read_text(encoding="utf-8"))
    if not ours:
        raise DataError(f"{output}: holds something that is no converted model; choose another output folder")
    if not overwrite:
        raise DataError(f"{output}: holds a converted model; pass --overwrite to replace it, or choose another folder")


def write_model_folder(
    output: Path,
    model: RetrForSequentialRecommendation,
    catalog: ItemCatalog | None,
    origin: Origin,
    overwrite: bool = False,
) -> None:
    """Writes a model folder whole or not at all, and opens it once: ``Recommender.from_pretrained`` will.

    Raises:
        DataError: see ``check_may_write``.
    """
    check_may_write(output, overwrite)
    with replacing(output) as folder:
        model.save_pretrained(folder)
        if catalog is not None:
            RetrProcessor(catalog, model.config.max_position_embeddings).save_pretrained(folder)
        made = environment()
        about = run_facts(output.name, origin, made)
        write_whole(folder / RUN_FILE, lambda path: path.write_text(json.dumps(about, indent=2) + "\n", "utf-8"))
        ModelCard(card(output.name, model, catalog, origin, made)).save(folder / "README.md")
        open_model(folder)


def run_facts(name: str, origin: Origin, made: dict[str, Any]) -> dict[str, Any]:
    """``run.json`` of a converted model: what ``scripts/finetune.py init=`` and ``scripts/evaluate.py`` ask of it.

    made: ``environment()``.
    """
    about = {
        "name": name,
        "recipe": origin.system,
        CONVERTED_FROM: {"file": origin.checkpoint.path.name, "sha256": _sha256(origin.checkpoint.path)},
        "trained_on": [*(origin.sources or []), origin.settings.dataset],
        "finished": made["date"],
    }
    return about | ({} if origin.sources is None else {"sources": list(origin.sources)}) | made


def card(
    name: str,
    model: RetrForSequentialRecommendation,
    catalog: ItemCatalog | None,
    origin: Origin,
    made: dict[str, Any],
) -> str:
    """The model card, Markdown with its metadata in front; made: ``environment()``."""
    config, checkpoint = model.config, origin.checkpoint
    data = ModelCardData(library_name="transformers", tags=[*TAGS, "converted"], model_name=name)
    epoch = checkpoint.entries.get("epoch")
    facts = {
        "trained on": origin.settings.dataset + (f", to epoch {epoch + 1}" if type(epoch) is int else ""),
        "reads": config.item_features,
        "items": "none here: any catalogue with such text vectors" if catalog is None else f"{len(catalog):,}",
        "text vectors": f"{config.text_encoder}, {config.text_size} wide" if config.uses_text else "none",
        "histories": f"up to {config.max_position_embeddings} items",
    }
    settings = ", ".join(f"{key}={value!r}" for key, value in sorted(origin.settings.used().items()))
    versions = ", ".join(f"{package} {number}" for package, number in made["versions"].items() if number)
    paragraphs = [
        f"# {name}",
        f"A {origin.system} checkpoint as a RETR model without router. Nothing was trained here; the weights are their "
        "authors', under their licence.",
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]),
        " ".join(["Given the same items and histories its outputs are theirs.", origin.scores, *origin.notes]),
        "## Use",
        "```python\nfrom retr_hf import Recommender\n\n"
        f"recommender = Recommender.from_pretrained(FOLDER{'' if catalog else ', catalog=PREPARED_DOMAIN'})\n"
        "print(recommender.recommend([ITEM_ID, ITEM_ID], k=10))\n```",
        "## Made from",
        "\n".join(
            f"- {file.name}, {file.stat().st_size:,} bytes, sha256 `{_sha256(file)}`"
            for file in (checkpoint.path, *origin.files)
        ),
        f"Its settings: {settings}.",
        "Nothing in the checkpoint was run. Classes and functions it names that were not built: "
        f"{', '.join(f'`{each}`' for each in checkpoint.foreign) or 'none'}.",
        f"Converted {made['date']}, commit {made['commit'] or 'unknown'}, {versions}.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(paragraphs) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
