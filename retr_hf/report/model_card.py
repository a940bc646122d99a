"""The model card of a run: what it was trained on, how, and what was measured; nothing that was not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .results import ResultRow, environment
from .tables import result_tables

TAGS = ["retr", "recommendation", "sequential-recommendation"]
_USE_FINE_TUNED = """from transformers import pipeline

recommend = pipeline("sequential-recommendation", model="THIS_FOLDER", trust_remote_code=True)
recommend({"history": ["ITEM_ID", "ITEM_ID"]}, top_k=10)  # items with titles and scores, and the pathway

# the network alone; AutoModelForSequenceClassification scores all items, AutoProcessor holds the catalogue
from transformers import AutoModel

body = AutoModel.from_pretrained("THIS_FOLDER", trust_remote_code=True)"""
_USE_PRE_TRAINED = """from retr_hf import Recommender

# zero-shot: any catalogue that was embedded by the same encoder
recommender = Recommender.from_pretrained("THIS_FOLDER", catalog="PREPARED_DOMAIN")
print(recommender.recommend(["ITEM_ID", "ITEM_ID"], k=10))

# the network alone, with or without retr_hf installed; AutoModelForPreTraining goes on pre-training
from transformers import AutoModel

body = AutoModel.from_pretrained("THIS_FOLDER", trust_remote_code=True)"""


def write_model_card(
    folder: str | Path,
    recipe: dict[str, Any],
    sources: Sequence[str],
    *,
    rows: Sequence[ResultRow] = (),
    target: str | None = None,
    validation: dict[str, Any] | None = None,
    synthetic: bool = False,
) -> Path:
    """Writes README.md into a model folder.

    Args:
        recipe: the resolved recipe.
        sources: names of the pre-training domains, [] from scratch.
        rows: what the run measured on its test split.
        target: the fine-tuning domain, None for a pre-trained model.
        validation: metric, best value and step of a pre-trained model.
        synthetic: whether any of the domains is made up; the card then says so first.
    """
    data = ModelCardData(
        library_name="transformers",
        tags=TAGS,
        model_name=recipe["name"],
        eval_results=[
            EvalResult(
                task_type="sequential-recommendation",
                dataset_type=row.domain,
                dataset_name=f"{row.domain}, {row.protocol}, {row.candidates} candidates",
                dataset_config=row.protocol,  # else the protocols' numbers would run together
                dataset_split=row.split,
                metric_type=metric,
                metric_value=value,
            )
            for row in rows
            for metric, value in row.metrics.items()
        ],
    )
    trained = f"fine-tuned on {target}" if target else "pre-trained"
    origin = f"pre-trained on {', '.join(sources)}" if sources else "trained from scratch"
    made = environment()
    lines = [
        f"# {recipe['name']}",
        f"A RETR sequential recommender, {trained}; {origin}."
        if target
        else f"A RETR sequential recommender, {origin}.",
        recipe.get("description") or "",
        "Its domains are SYNTHETIC: the numbers show that the code runs, nothing about shops." if synthetic else "",
    ]
    if rows:
        lines += ["## Measured", result_tables(rows, published="none")]
    elif validation:
        lines += [
            "## Measured",
            f"Mean validation {validation['metric']} over the sources: {validation['best']:.4f} at step "
            f"{validation['best_step']} (next item, full ranking).",
        ]
    elif recipe["data"].get("train_on") == "all":
        lines += [
            "## Measured",
            "Nothing: it was trained on all interactions of its domain, those of validation and test too. What to "
            "expect tells the run whose recipe it repeats.",
        ]
    use = _USE_FINE_TUNED if target else _USE_PRE_TRAINED
    lines += [
        "## Use",
        f"```python\n{use}\n```",
        "Item ids, texts and vectors are in `items.parquet` and `item_embeddings.safetensors`." if target else "",
        "## Made with",
        f"The recipe is in `recipe.yaml`, the log in `log.jsonl`. Commit {made['commit'] or 'unknown'}, "
        + ", ".join(f"{name} {number}" for name, number in made["versions"].items() if number)
        + ".",
    ]
    text = "\n\n".join(line for line in lines if line)
    path = Path(folder) / "README.md"
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(path)
    return path
