"""The rules of the house, read off the syntax trees: who imports whom, what is documented, what a file is called.

Every rule is a function from sources (path -> text) to a list of violations. It is asked twice: of the repository,
where it must find nothing, and of a small bad example, where it must find the one violation that is there.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
Sources = dict[str, str]  # path from the repository root, with forward slashes -> text

WINGS = {"model", "baselines", "data", "training", "evaluation", "report"}
FLOOR = {
    "retr_hf.errors",
    "retr_hf.version",
    "retr_hf.data.schema",
    "retr_hf.model.folders",
    "retr_hf.model.item_catalog",
    "retr_hf.model.item_vectors",
    "retr_hf.model.text_encoders",
    "retr_hf.model.losses",
    "retr_hf.evaluation.metrics",
}
TORCH = {"torch", "transformers", "accelerate"}  # what the data and report wings do without
LAZY = {"sentence_transformers"}  # brings torch: imported where it is used, if at all
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_LINES = 350
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "|".join(["work", "root", r"tmp/w"]) + r")(?![\w.-])")


def read_sources(root: Path = ROOT) -> Sources:
    """The text files that are in the repository or would be added to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout: no telling which files belong to the repository")
    sources = {}
    for name in filter(None, listing.stdout.split("\0")):
        try:
            sources[name] = (root / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # a picture; a file deleted and not yet committed
            continue
    return sources


# Reading the trees.


def modules(sources: Sources, *folders: str) -> dict[str, str]:
    """Python files below the folders: path -> text."""
    return {path: text for path, text in sources.items() if path.endswith(".py") and path.split("/")[0] in folders}


def module_name(path: str) -> str:
    """retr_hf/data/schema.py -> retr_hf.data.schema; a package is called by its folder."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, sources: Sources) -> Iterator[tuple[ast.stmt, str]]:
    """Every import of a file, at any depth, with the full name of the module that it reaches."""
    known = {module_name(other) for other in modules(sources, "retr_hf", "scripts")}
    for node in ast.walk(ast.parse(sources[path])):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(PurePosixPath(path).parts[: -node.level]) if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            for alias in node.names:  # `from . import strict_yaml` reaches the module, not the package
                inner = f"{base}.{alias.name}"
                yield node, inner if inner in known else base


def floor_of(module: str) -> int:
    """0 the floor, 1 the wings, 2 the hall (pipeline, public names), 3 the scripts."""
    if module in FLOOR:
        return 0
    parts = module.split(".")
    if parts[0] == "scripts":
        return 3
    return 1 if len(parts) > 1 and parts[1] in WINGS else 2


# The rules.


def imports_that_do_not_point_down(sources: Sources) -> list[str]:
    """scripts > pipeline > wings > floor; wings meet in scripts and pipeline only."""
    found = []
    for path in modules(sources, "retr_hf", "scripts"):
        here = module_name(path)
        for node, there in imports(path, sources):
            if there.split(".")[0] not in ("retr_hf", "scripts"):
                continue
            up = floor_of(there) > floor_of(here)
            across = floor_of(there) == floor_of(here) == 1 and there.split(".")[1] != here.split(".")[1]
            if up or across:
                found.append(f"{path}:{node.lineno}: imports {there} ({'upwards' if up else 'another wing'})")
    return found


def torch_where_there_is_none(sources: Sources) -> list[str]:
    """The data and report wings run without torch."""
    found = []
    for path in modules(sources, "retr_hf"):
        if not path.startswith(("retr_hf/data/", "retr_hf/report/")):
            continue
        at_once = ast.parse(sources[path]).body
        first_lines = {node.lineno for node in at_once}
        for node, there in imports(path, sources):
            top = there.split(".")[0]
            if top in TORCH or (top in LAZY and node.lineno in first_lines):
                found.append(f"{path}:{node.lineno}: imports {top}")
    return found


def model_files_that_cannot_travel(sources: Sources) -> list[str]:
    """retr_hf/model goes to the Hub without the package: one flat folder, relative imports inside it."""
    found = []
    for path in modules(sources, "retr_hf"):
        if not path.startswith("retr_hf/model/"):
            continue
        if path.count("/") > 2:
            found.append(f"{path}: is in a subfolder")
        for node, there in imports(path, sources):
            absolute = isinstance(node, ast.Import) or node.level == 0
            if there.split(".")[0] == "retr_hf" and (absolute or node.level > 1):
                found.append(f"{path}:{node.lineno}: imports {there}; write `from .module import name`")
    return found


def packages_that_do_something(sources: Sources) -> list[str]:
    """A package folder has an __init__.py with a docstring at most, so that importing a module imports no other."""
    found = []
    for path in modules(sources, "retr_hf"):
        init = str(PurePosixPath(path).parent / "__init__.py")
        if init not in sources:
            found.append(f"{path}: has no {init} beside it")
        elif path == init != "retr_hf/__init__.py":
            tree = ast.parse(sources[path])
            if len(tree.body) > (ast.get_docstring(tree) is not None):
                found.append(f"{path}: holds more than a docstring")
    return found


def vague_names(sources: Sources) -> list[str]:
    """A file is called by what it holds."""
    paths = map(PurePosixPath, modules(sources, "retr_hf", "scripts", "tests"))
    return [str(path) for path in paths if VAGUE & {part.removesuffix(".py").strip("_") for part in path.parts}]


def long_modules(sources: Sources) -> list[str]:
    """One idea a file."""
    lengths = {path: len(text.splitlines()) for path, text in modules(sources, "retr_hf", "scripts").items()}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > MOST_LINES]


def undocumented(sources: Sources) -> list[str]:
    """Public modules, and the functions and classes they define, have docstrings."""
    found = []
    for path, text in modules(sources, "retr_hf", "scripts").items():
        tree, name = ast.parse(text), PurePosixPath(path).stem
        if not name.startswith("_") and ast.get_docstring(tree) is None:
            found.append(f"{path}: the module")
        if path.startswith("scripts/"):
            continue  # a script is documented by its opening and its --help
        for node in tree.body:
            defines = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if defines and not node.name.startswith("_") and ast.get_docstring(node) is None:
                found.append(f"{path}:{node.lineno}: {node.name}")
    return found


def scripts_without_a_launch_command(sources: Sources) -> list[str]:
    """A script opens with how it is run."""
    found = []
    for path, text in modules(sources, "scripts").items():
        opening = ast.get_docstring(ast.parse(text)) or ""
        if not re.search(rf"^\s*[^\n]*(?:python|accelerate launch|torchrun)\b[^\n]*{re.escape(path)}", opening, re.M):
            found.append(path)
    return found


def unnamed_in_the_readme(sources: Sources) -> list[str]:
    """Whatever can be run is named in README.md."""
    named = [path for path in sources if re.match(r"scripts/.*\.(py|sh)$|recipes/.*\.ya?ml$", path)]
    return [path for path in named if path not in sources.get("README.md", "")]


def machine_paths(sources: Sources) -> list[str]:
    """Nothing points into one person's machine."""
    return [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in sources.items()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]


# Asked of the repository, and of one bad example each.

CLEAN = {
    "README.md": "scripts/train.py and recipes/toy.yaml",
    "recipes/toy.yaml": "name: toy\n",
    "scripts/train.py": '''"""Trains.

    python scripts/train.py
"""
from retr_hf import Net
from retr_hf.data import read
''',
    "retr_hf/__init__.py": '"""Names."""\nfrom .errors import Wrong\n',
    "retr_hf/errors.py": '"""Errors."""\n',
    "retr_hf/pipeline.py": '"""Serves."""\nfrom .data.read import read\nfrom .model.net import Net\n',
    "retr_hf/data/__init__.py": "",
    "retr_hf/data/schema.py": '"""Columns."""\n',
    "retr_hf/data/read.py": '''"""Reads."""
from ..errors import Wrong
from ..model.losses import f
from . import schema

def read():
    """Reads."""
    import sentence_transformers
''',
    "retr_hf/model/__init__.py": '"""Model."""\n',
    "retr_hf/model/losses.py": '"""Losses."""\nimport torch\n',
    "retr_hf/model/net.py": '"""Net."""\nimport torch\nfrom .losses import f\n',
}
DOCUMENTED = '"""What it is for."""\n\n'
BAD = [  # (rule, path of the bad file, its text, what the violation names)
    (imports_that_do_not_point_down, "retr_hf/data/read.py", "from ..model.net import Net\n", "model.net (another"),
    (imports_that_do_not_point_down, "retr_hf/data/read.py", "from retr_hf.model import net\n", "retr_hf.model.net"),
    (imports_that_do_not_point_down, "retr_hf/data/schema.py", "from . import read\n", "retr_hf.data.read (upwards"),
    (imports_that_do_not_point_down, "retr_hf/data/read.py", "def f():\n    import retr_hf\n", "f (upwards"),
    (imports_that_do_not_point_down, "retr_hf/pipeline.py", "from scripts import train\n", "scripts.train (upwards"),
    (torch_where_there_is_none, "retr_hf/data/read.py", "def f():\n    from torch import nn\n", "read.py:4"),
    (torch_where_there_is_none, "retr_hf/report/plots.py", "import transformers.utils\n", "imports transformers"),
    (torch_where_there_is_none, "retr_hf/data/read.py", "import sentence_transformers\n", "sentence_transformers"),
    (model_files_that_cannot_travel, "retr_hf/model/net.py", "from retr_hf.model.losses import f\n", "net.py:3"),
    (model_files_that_cannot_travel, "retr_hf/model/net.py", "from ..errors import Wrong\n", "retr_hf.errors"),
    (model_files_that_cannot_travel, "retr_hf/model/parts/net.py", "", "subfolder"),
    (packages_that_do_something, "retr_hf/data/__init__.py", "from .read import read\n", "more than a docstring"),
    (packages_that_do_something, "retr_hf/report/plots.py", "", "has no retr_hf/report/__init__.py"),
    (vague_names, "retr_hf/data/utils.py", "", "retr_hf/data/utils.py"),
    (vague_names, "tests/common/test_it.py", "", "tests/common/test_it.py"),
    (long_modules, "retr_hf/model/net.py", "x = 1\n" * 349, "351 lines"),
    (undocumented, "retr_hf/model/net.py", "class Net:\n    pass\n", "net.py:3: Net"),
    (undocumented, "retr_hf/model/net.py", "def f():\n    pass\n", "net.py:3: f"),
    (scripts_without_a_launch_command, "scripts/train.py", "", "scripts/train.py"),
    (unnamed_in_the_readme, "scripts/embed.py", "", "scripts/embed.py"),
    (unnamed_in_the_readme, "recipes/deep/other.yaml", "", "recipes/deep/other.yaml"),
    (machine_paths, "retr_hf/model/net.py", f"PATH = '{os.sep}work{os.sep}data'\n", "net.py:3"),
]
RULES = list(dict.fromkeys(rule for rule, *_ in BAD))


@pytest.fixture(scope="module")
def repository() -> Sources:
    return read_sources()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rule(rule: Callable[[Sources], list[str]], repository: Sources):
    assert "retr_hf/__init__.py" in repository
    violations = rule(repository)
    assert not violations, f"{rule.__doc__}\n" + "\n".join(violations)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_lets_clean_sources_pass(rule: Callable[[Sources], list[str]]):
    assert rule(CLEAN) == []


@pytest.mark.parametrize(("rule", "path", "text", "told"), BAD, ids=[f"{one[0].__name__}-{one[1]}" for one in BAD])
def test_the_rule_finds_its_violation(rule: Callable[[Sources], list[str]], path: str, text: str, told: str):
    (violation,) = rule({**CLEAN, path: DOCUMENTED + text})
    assert told in violation


def test_an_undocumented_module_is_found():
    assert undocumented({**CLEAN, "retr_hf/model/net.py": "x = 1\n"}) == ["retr_hf/model/net.py: the module"]


# What only running shows.


def run_python(*arguments: str) -> subprocess.Popen:
    """Starts Python in the repository, on one thread, as a person without an installed package would."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, **pipes)


def test_data_and_report_load_no_torch(repository: Sources):
    names = [module_name(path) for path in repository if re.match(r"retr_hf/(data|report)/.*\.py$", path)]
    check = f"import sys, retr_hf, {', '.join(names)}; sys.exit(f'torch came in' if 'torch' in sys.modules else 0)"
    process = run_python("-c", check)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


# In one process, for most of the time is imports; what one script imports, another could miss: no matter for its help.
ASK_ALL_FOR_HELP = """
import contextlib, io, json, runpy, sys
answers = {}
for path in sys.argv[1:]:
    sys.argv, said = [path, "--help"], io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(path, run_name="__main__")
            code = "it did not stop"
        except SystemExit as end:
            code = end.code
    answers[path] = [code, said.getvalue()]
print(json.dumps(answers))
"""


def test_every_script_answers_help(repository: Sources):
    scripts = [path for path in repository if re.match(r"scripts/[^/]*\.py$", path)]
    output, _ = (process := run_python("-c", ASK_ALL_FOR_HELP, *scripts)).communicate(timeout=300)
    assert process.returncode == 0, output[-2000:]
    answers = json.loads(output.splitlines()[-1])
    silent = {path: answers[path] for path in scripts if answers[path][0] or "usage:" not in answers[path][1].lower()}
    assert scripts and not silent


def test_every_shell_script_answers_help(repository: Sources):
    for path in (path for path in repository if re.match(r"scripts/[^/]*\.sh$", path)):
        assert "--help" in repository[path], f"{path} would do its work when asked for help"
        answer = subprocess.run(["bash", path, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0 and path in answer.stdout, answer.stderr
