"""The folder of a converted model: config, weights, catalogue, and a card that says what it was made from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..data.domain_folder import replacing
from ..errors import DataError
from ..model.item_catalog import ItemCatalog, write_whole
from ..model.modeling_retr import RetrForSequentialRecommendation
from ..pipeline import open_model
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
    files: the other files it was made from.
    notes: sentences on what the conversion decided.
    sources: domains of an earlier pre-training, None where nobody says.
    """

    system: str
    checkpoint: Checkpoint
    settings: TheirSettings
    files: Sequence[Path] = ()
    notes: Sequence[str] = ()
    sources: Sequence[str] | None = None
    scores: str = ""
    made: dict[str, Any] = field(default_factory=environment)


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
            catalog.save_pretrained(folder)
        about = run_facts(output.name, origin)
        write_whole(folder / RUN_FILE, lambda path: path.write_text(json.dumps(about, indent=2) + "\n", "utf-8"))
        ModelCard(card(output.name, model, catalog, origin)).save(folder / "README.md")
        open_model(folder)


def run_facts(name: str, origin: Origin) -> dict[str, Any]:
    """``run.json`` of a converted model: what ``scripts/finetune.py init=`` and ``scripts/evaluate.py`` ask of it."""
    trained_on = [*(origin.sources or []), str(origin.settings.stored.get("dataset") or "unknown")]
    known = {} if origin.sources is None else {"sources": list(origin.sources)}
    source = {"file": origin.checkpoint.path.name, "sha256": _sha256(origin.checkpoint.path)}
    made = {"finished": origin.made["date"], **origin.made}
    return {"name": name, "recipe": origin.system, CONVERTED_FROM: source, "trained_on": trained_on, **known, **made}


def card(name: str, model: RetrForSequentialRecommendation, catalog: ItemCatalog | None, origin: Origin) -> str:
    """The model card, as Markdown with its metadata in front."""
    config, checkpoint = model.config, origin.checkpoint
    data = ModelCardData(library_name="transformers", tags=[*TAGS, "converted"], model_name=name)
    files = [checkpoint.path, *origin.files]
    epoch = checkpoint.entries.get("epoch")
    arguments = "FOLDER" if catalog is not None else "FOLDER, catalog=DOMAIN_WITH_TEXT_VECTORS"
    items = (
        "none: any catalogue whose text vectors are of the encoder below" if catalog is None else f"{len(catalog):,}"
    )
    facts = {
        "source": f"{origin.system}, trained on {origin.settings.stored.get('dataset') or 'unknown'}"
        + (f", epoch {epoch} (from 0)" if isinstance(epoch, int) else ""),
        "reads": config.item_features,
        "items": items,
        "text encoder": config.text_encoder if config.uses_text else "none",
        "histories": f"up to {config.max_position_embeddings} items",
    }
    lines = [
        f"# {name}",
        f"A {origin.system} checkpoint as a RETR model without router. Nothing was trained here; the weights are their "
        "authors', under their licence.",
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]),
        "## Same outputs",
        origin.scores,
        *origin.notes,
        "## Use",
        "```python\nfrom retr_hf import Recommender\n\n"
        f"recommender = Recommender.from_pretrained({arguments})\n"
        "print(recommender.recommend([ITEM_ID, ITEM_ID], k=10))\n```",
        "## Made from",
        "\n".join(f"- {file.name}, {file.stat().st_size:,} bytes, sha256 `{_sha256(file)}`" for file in files),
        "Opened without running it. Classes and functions that the checkpoint names and that were not built: "
        + (", ".join(f"`{name}`" for name in checkpoint.foreign) or "none")
        + ".",
        "Its settings: " + ", ".join(f"{key}={value!r}" for key, value in sorted(origin.settings.used().items())) + ".",
        f"Commit {origin.made['commit'] or 'unknown'}, "
        + ", ".join(f"{package} {number}" for package, number in origin.made["versions"].items() if number)
        + f", {origin.made['date']}.",
    ]
    text = "\n\n".join(line for line in lines if line)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
