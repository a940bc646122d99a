"""What the examples of scripts, library and recipes open below runs/ is what a recipe leaves there."""

import re
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = ("scripts/*.py", "retr_hf/**/*.py", "recipes/**/*.yaml")
MAKES = re.compile(r"convert_\w+\.py.*|(?:\boutput=|--(?:output|results|figure) )\S+")  # by the very command
NAMED = re.compile(r"(?<![\w/])runs/[\w./*-]*\w")


def left_by_recipes() -> tuple[re.Pattern, list[str]]:
    """What fits a model folder, or a grid's, and a file in it; the files of result rows, and what searches choose."""
    recipes = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("recipes/**/*.yaml")]
    data = [recipe["data"] for recipe in recipes if "data" in recipe]
    domains = [Path(path).name for each in data for path in [*each.get("domains", []), each.get("domain", "")]]
    names = [recipe["name"] for recipe in recipes if "name" in recipe]
    any_of = {"name": names, "domain": domains}
    fields = {field: f"(?:{'|'.join(map(re.escape, values))})" for field, values in any_of.items()}
    outputs = {recipe["output"] for recipe in recipes if "output" in recipe}
    folders = [output.replace(".", r"\.").format(seed=r"\d+", **fields) for output in outputs]
    files = "rows.jsonl|table.md|learning_curves.png|recipe.yaml".replace(".", r"\.")
    rows = [recipe["results"] for recipe in recipes if "results" in recipe]
    searches = [recipe for recipe in recipes if "values" in recipe]
    rows += [
        f"{each['output']}/{domain}/{Path(system).stem}.yaml"
        for each in searches
        for system in each["systems"]
        for domain in domains
    ]
    return re.compile(f"(?:{'|'.join(folders)})(?:/(?:{files}))?"), rows


def examples() -> list[tuple[str, str]]:
    """(file, path below runs/) of what an example opens; of a recipe only the comments are examples."""
    files = sorted(chain(*(ROOT.glob(pattern) for pattern in WITH_EXAMPLES)))
    return [
        (str(file.relative_to(ROOT)), named)
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if file.suffix == ".py" or line.startswith("#")
        for named in NAMED.findall(MAKES.sub("", line))
    ]


def test_an_example_opens_what_a_recipe_leaves():
    folder, rows = left_by_recipes()
    assert folder.fullmatch("runs/scientific/X-RETR/seed-0") and not folder.fullmatch("runs/scientific")
    shown = examples()
    assert {"scripts/report.py", "scripts/recommend.py", "recipes/finetune/arts.yaml"} <= {file for file, _ in shown}
    wrong = [
        (file, path)
        for file, path in shown
        if not folder.fullmatch(path) and not any(fnmatchcase(one, path) for one in rows)
    ]
    assert wrong == []
