"""The folder of a prepared domain as a whole: made of what, may it be replaced, and put in place in one step."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import DataError
from .domain import DOMAIN_FORMAT, read_about
from .readers.raw import RawDomain
from .schema import DOMAIN_FILE

_CHUNK = 2**20  # bytes read at once


def fingerprints(raw: RawDomain) -> list[dict[str, Any]]:
    """File name, sha256 and size of every input; of the frames themselves where no file was read."""
    if raw.inputs:
        return [_of_file(Path(path)) for path in raw.inputs]
    frames = (("sequences", raw.sequences), ("items", raw.items))
    contents = [(f"{name} (made in memory)", frame.write_ndjson().encode()) for name, frame in frames]
    return [{"path": name, "sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)} for name, text in contents]


def recipe_of(request: Mapping[str, Any], paths: Iterable[Path]) -> str:
    """sha256 of what was asked for and of the files it names (all files of a folder), known before any is read.

    Args:
        request: JSON-able once it is turned to strings; what does not change the result is left out by the caller.
        paths: the files and folders that the request names.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    contents = [_of_file(file) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps([request, contents], default=str, sort_keys=True).encode()).hexdigest()


def is_up_to_date(output: Path, name: str, provenance: dict[str, Any]) -> bool:
    """Whether ``output`` holds the domain ``name`` with every key of ``provenance`` as given."""
    if not (output / DOMAIN_FILE).is_file():
        return False
    stored = read_about(output)
    made_from = {key: stored.get("provenance", {}).get(key) for key in provenance}
    same = json.loads(json.dumps(provenance)) == made_from
    return same and stored.get("name") == name and stored.get("format") == DOMAIN_FORMAT


def check_may_write(output: Path, overwrite: bool) -> None:
    """Raises DataError where ``output`` holds something; a prepared domain may be replaced with ``overwrite``."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / DOMAIN_FILE).is_file():
        raise DataError(
            f"{output}: expected a new or empty folder or a prepared domain, got something else, which is never "
            "replaced; choose another --output"
        )
    if not overwrite:
        raise DataError(
            f"{output}: holds a prepared domain made from other inputs or options; pass --overwrite to replace it "
            "(item embeddings in that folder go with it), or choose another --output"
        )


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` to fill; it takes ``output``'s place on success and vanishes on any failure.

    Only a killed process (SIGKILL, power) can leave it behind, under a hidden name beside ``output``.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    replaced = output.with_name(f".{output.name}.replaced-{os.getpid()}")
    try:
        partial.mkdir()  # within: an interrupt may arrive before the next line
        yield partial
        if output.exists():
            os.replace(output, replaced)
        os.replace(partial, output)
    finally:
        if replaced.exists() and not output.exists():  # stopped between the two renames
            os.replace(replaced, output)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _of_file(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {"path": path.name, "sha256": _sha256(path, state.st_mtime_ns, state.st_size), "bytes": state.st_size}


@lru_cache
def _sha256(path: Path, *_state: int) -> str:
    """Of a file in this state; asked for twice where a recipe is looked at before the reading."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
