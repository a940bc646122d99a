"""One process at a time writes in a folder of runs."""

from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from ..errors import RecipeError


def hold(folder: Path) -> AcquireReturnProxy:
    """Keeps other processes out of a folder for as long as what it returns lives; what was killed holds nothing.

    The file ``.NAME.lock`` lies beside the folder, which may not exist yet, and means nothing by being there.

    Raises:
        RecipeError: another process works in it; a file stands where it, or a folder above it, would be.
    """
    folder = folder.absolute()
    if files := [path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()]:
        raise RecipeError(str(folder), [f"{files[0]} is a file: expected a folder, set another output"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0, is_singleton=True)
    try:
        return lock.acquire()
    except Timeout as error:
        problem = "another process works in this folder: wait until it ends, stop it, or set another output="
        raise RecipeError(str(folder), [problem]) from error
