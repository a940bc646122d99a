"""Opens a ``torch.save`` file whose pickle holds more than tensors, and runs nothing of it.

RecBole keeps a ``Config`` object, enums and classes beside the weights, under pickle protocol 4, so that
``torch.load(weights_only=True)`` refuses its checkpoints; and ``weights_only=False`` does what the pickle says, hands a
TorchScript archive to the compiler and a tar file to tarfile, whatever ``pickle_module`` is given. This reader has two
steps, and both only copy data:

1. the pickle. Two names mean something: ``torch._utils._rebuild_tensor_v2`` (kept as a description of the tensor) and
   ``collections.OrderedDict`` (a dict). Every other class or function becomes a ``Foreign``, which keeps the arguments
   and the state the file has for it, and does nothing.
2. the weights. The tensors of ``state_dict``, and no others, are read from their records and checked against them.

Formats: the zip archive of torch 1.6 and later, and the sequence of pickles before it.
"""

import io
import math
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in (
        ("Float", torch.float32),
        ("Double", torch.float64),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Long", torch.int64),
        ("Int", torch.int32),
        ("Short", torch.int16),
        ("Char", torch.int8),
        ("Byte", torch.uint8),
        ("Bool", torch.bool),
    )
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    path: the file.
    weights: name -> tensor, of its ``state_dict`` (or of the file itself, where it is nothing else).
    entries: the rest as the file has it, strings, numbers, lists, dicts, and ``Foreign`` for every object.
    foreign: names of all classes and functions in the file that were not built, sorted.
    """

    path: Path
    weights: dict[str, torch.Tensor]
    entries: dict[str, Any]
    foreign: list[str]


class Foreign:
    """Stands for an object of a class that is not to be built: what the file says of it, and no behaviour.

    named: "module.name" of the class or function in the file.
    arguments: what it would have been called with.
    state: what it would have been given as its attributes, None without.
    """

    named = ""
    state: Any = None

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.arguments = args
        return self

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        object.__setattr__(self, "state", state)

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        """Of a list or set of their own class; its items are not kept."""

    extend = add = append

    def __repr__(self) -> str:
        return f"<{self.named}, not built>"


class _StoredDict(dict):
    """An OrderedDict; the attributes it had are dropped."""

    def __setstate__(self, state):
        pass


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    numel: int

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a storage with a state")


class _StoredTensor:
    """Where a tensor lies, under the arguments of ``torch._utils._rebuild_tensor_v2``."""

    def __init__(self, storage, offset, size, stride, *unused):
        if not isinstance(storage, _Storage) or not all(type(n) is int for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor that is not described by a storage and whole numbers")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a tensor with a state")

    def read(self, record: bytes) -> torch.Tensor:
        """The tensor, out of the bytes of its storage."""
        expected = self.storage.numel * self.storage.dtype.itemsize
        if len(record) != expected or math.prod(self.size) > self.storage.numel:
            raise ValueError(f"a tensor {list(self.size)} in a storage of {len(record)} bytes, expected {expected}")
        flat = torch.frombuffer(bytearray(record), dtype=self.storage.dtype) if record else torch.empty(0)
        return flat.as_strided(self.size, self.stride, self.offset).clone()  # refuses what leaves the storage


class _InertUnpickler(pickle.Unpickler):
    """Everything a pickle can name is one of the classes above.

    Classes and never functions or instances: a pickle may set the attributes of what it was given, and on these there
    is a ``__setstate__`` in the way.
    """

    def __init__(self, file):
        super().__init__(file)
        self.classes: dict[str, type] = {
            "torch._utils._rebuild_tensor_v2": _StoredTensor,
            "collections.OrderedDict": _StoredDict,
        }
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module, name):
        named = f"{module}.{name}"
        if named not in self.classes:
            self.classes[named] = type("Foreign", (Foreign,), {"named": named})
        return self.classes[named]

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("a persistent id that is no storage")
        dtype = _DTYPES.get(getattr(pid[1], "named", None))
        if dtype is None or not isinstance(pid[2], str) or type(pid[4]) is not int or any(pid[5:]):
            raise pickle.UnpicklingError(f"a storage of a kind that is not read: {pid[1:2]}")
        return self.storages.setdefault(pid[2], _Storage(pid[2], dtype, pid[4]))

    @property
    def foreign(self) -> list[str]:
        """Names of what was not built, fit to be printed; the kinds of storages are known."""
        names = (name for name, cls in self.classes.items() if issubclass(cls, Foreign) and name not in _DTYPES)
        return sorted(re.sub(r"[^\w.]", "?", name) for name in names)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a file of ``torch.save``; see the top of the file.

    Raises:
        DataError: no such file, a truncated or damaged one, none of torch, or one without weights.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a checkpoint of torch.save")
    try:
        return _from_zip(path) if zipfile.is_zipfile(path) else _from_pickles(path)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(
            f"{path}: not a checkpoint of torch.save that can be read, or a damaged one "
            f"({type(error).__name__}: {error}); copy it again"
        ) from error


def _from_zip(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise DataError(f"{path}: a zip archive, but not of torch.save: expected one NAME/data.pkl in it")
        root = roots[0]
        if f"{root}constants.pkl" in names:
            raise DataError(f"{path}: a TorchScript program; expected the checkpoint that the trainer saved")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise DataError(f"{path}: compressed records, which torch.save never writes; not opened")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise DataError(f"{path}: written on a big-endian machine; save it again on a usual one")
        unpickler = _InertUnpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
        content = unpickler.load()
        return _checkpoint(path, content, unpickler, lambda key: archive.read(f"{root}data/{key}"))


def _from_pickles(path: Path) -> Checkpoint:
    file = io.BytesIO(path.read_bytes())
    if file.getvalue()[:4] == b"PK\x03\x04":
        raise DataError(f"{path}: begins as a checkpoint but does not end as one: it is truncated; copy it again")
    if _InertUnpickler(file).load() != _LEGACY_MAGIC:
        raise DataError(f"{path}: a pickle, but not of torch.save; expected the checkpoint that the trainer saved")
    for _ in ("protocol", "system"):
        _InertUnpickler(file).load()
    unpickler = _InertUnpickler(file)
    content = unpickler.load()
    records = {}
    for key in _InertUnpickler(file).load():  # the storages follow in this order: their length, then their entries
        storage = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.numel:
            raise ValueError(f"storage {key} is not as long as its tensors say")
        records[key] = file.read(storage.numel * storage.dtype.itemsize)
    return _checkpoint(path, content, unpickler, records.__getitem__)


def _checkpoint(path: Path, content: Any, unpickler: _InertUnpickler, record) -> Checkpoint:
    entries = dict(content) if isinstance(content, dict) else {}
    weights = entries.pop("state_dict", None)
    if weights is None:  # the weights alone
        weights = {name: value for name, value in entries.items() if isinstance(value, _StoredTensor)}
        entries = {name: value for name, value in entries.items() if name not in weights}
    if not isinstance(weights, dict) or not weights:
        raise DataError(f"{path}: no state_dict in it; expected the checkpoint that the trainer saved")
    wrong = {name: value for name, value in weights.items() if not isinstance(value, _StoredTensor)}
    if wrong:
        raise DataError(f"{path}: expected tensors in state_dict, got {dict(list(wrong.items())[:3])}")
    tensors = {str(name): tensor.read(record(tensor.storage.key)) for name, tensor in weights.items()}
    return Checkpoint(path, tensors, entries, unpickler.foreign)
