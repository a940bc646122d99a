"""The public names of the package: all of them load, none before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retr_hf

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", retr_hf.__all__)
def test_every_public_name_loads(name):
    assert getattr(retr_hf, name) is not None
    assert name in dir(retr_hf)


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "retr_hf" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: f".{node.module}" for node in block.body for alias in node.names}
    assert seen == retr_hf._MODULES
    assert set(retr_hf.__all__) == {*seen, "__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'RetrModl'"):
        _ = retr_hf.RetrModl


def test_importing_the_package_loads_no_torch():
    check = "import sys, retr_hf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
