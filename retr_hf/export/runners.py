"""Opens an exported program: arrays in, arrays out. Needs onnxruntime for .onnx, torch for .pt2, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..errors import RetrError

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
Program: TypeAlias = Callable[..., dict[str, np.ndarray]]  # inputs by name -> outputs by name


def open_program(path: Path, threads: int | None = None) -> Program:
    """A program by its file. It is called with arrays by name, and gives arrays by name.

    threads: of the runtime (None: its own choice; for .pt2 always torch's).

    Raises:
        RetrError: onnxruntime is not installed.
    """
    return _torch(path) if path.suffix == SUFFIXES["torch"] else _onnx(path, threads)


def _onnx(path: Path, threads: int | None) -> Program:
    try:
        import onnxruntime
    except ImportError as error:
        raise RetrError(f"{path}: needs onnxruntime: pip install 'retr_hf[serve]'") from error
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return lambda **inputs: dict(zip(outputs, session.run(outputs, inputs), strict=True))


def _torch(path: Path) -> Program:
    import torch

    module = torch.export.load(path).module()

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(values) for name, values in inputs.items()})
        return {name: values.numpy() for name, values in outputs.items()}

    return run
