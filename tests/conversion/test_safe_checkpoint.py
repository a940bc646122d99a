"""A checkpoint is read and never run: what comes out, what stays inert, and what is refused."""

import os
import pickle
import zipfile

import pytest
import torch

from retr_hf.conversion.safe_checkpoint import Foreign, read_checkpoint
from retr_hf.errors import DataError

ZIP_2, ZIP_4 = {"pickle_protocol": 2}, {"pickle_protocol": 4}
LEGACY = {"pickle_protocol": 2, "_use_new_zipfile_serialization": False}


class Runs:
    """Pickled as a call that leaves a file behind where it is run."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def repack(source, target, compression=zipfile.ZIP_STORED, **records):
    """Copies a checkpoint; records named by their end (dots for slashes) are replaced, or dropped by None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            inner = name.split("/", 1)[1].replace("/", "_").replace(".", "_")
            content = records.pop(inner, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in records.items():
            new.writestr(f"{old.namelist()[0].split('/')[0]}/{name.replace('_', '.')}", content)
    return target


@pytest.mark.parametrize("options", [ZIP_2, ZIP_4, LEGACY], ids=["zip-2", "zip-4", "legacy"])
def test_weights_come_back_and_objects_stay_closed(recbole, tmp_path, options):
    base = torch.arange(24, dtype=torch.float32).view(4, 6)
    weights = {
        "whole": base,
        "turned": base.T,
        "part": base[1:3, ::2],
        "half": torch.randn(3).half(),
        "counts": torch.tensor([[7, -1]]),
        "flag": torch.tensor(True),
        "none": torch.empty(0, 5),
        "brain": torch.randn(2, 2).bfloat16(),
    }
    protocol = options["pickle_protocol"]
    rest = {name: value for name, value in options.items() if name != "pickle_protocol"}
    path = recbole.save(tmp_path / "x.pth", weights, recbole.settings, protocol, **rest)
    checkpoint = read_checkpoint(path)
    assert checkpoint.weights.keys() == weights.keys()
    for name, tensor in weights.items():
        assert checkpoint.weights[name].dtype == tensor.dtype and torch.equal(checkpoint.weights[name], tensor), name
    config = checkpoint.entries["config"]
    assert isinstance(config, Foreign) and config.named == "recbole.config.configurator.Config"
    assert config.state["final_config_dict"]["n_heads"] == recbole.settings["n_heads"]
    assert isinstance(config.state["final_config_dict"]["MODEL_TYPE"], Foreign)
    assert checkpoint.entries["epoch"] == 6
    assert {"recbole.config.configurator.Config", "recbole.utils.enum_type.ModelType"} <= set(checkpoint.foreign)
    assert not any("Storage" in name or "_rebuild_tensor" in name for name in checkpoint.foreign)


def test_a_state_dict_alone(tmp_path):
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").weights["weight"].shape == (3, 2)


@pytest.mark.parametrize("options", [ZIP_2, ZIP_4, LEGACY], ids=["zip-2", "zip-4", "legacy"])
def test_nothing_in_the_file_runs(tmp_path, options):
    mark = tmp_path / "it ran"
    attacks = {
        "config": Runs(os.system, f"touch '{mark}'"),
        "epoch": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "more": [Runs(exec, f"open({str(mark)!r}, 'w')"), Runs(open, str(mark), "w")],
    }
    torch.save({"state_dict": {"w": torch.ones(2)}} | attacks, tmp_path / "x.pth", **options)
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert not mark.exists()
    assert checkpoint.weights["w"].tolist() == [1, 1]
    named = {"posix.system", "nt.system"} & set(checkpoint.foreign)
    assert named and any(name.endswith(".eval") for name in checkpoint.foreign)
    assert isinstance(checkpoint.entries["config"], Foreign)
    torch.load(tmp_path / "x.pth", weights_only=False)  # the attack is one: opened in the usual way it does run
    assert mark.exists()


def test_an_attack_among_the_weights_is_named(tmp_path):
    mark = tmp_path / "it ran"
    torch.save({"state_dict": {"w": Runs(os.system, f"touch '{mark}'")}}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"expected tensors in state_dict, got .*system, not built"):
        read_checkpoint(tmp_path / "x.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    "target", [b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict", b"torch\nFloatStorage", b"os\nsystem"]
)
def test_a_pickle_cannot_change_what_it_was_given(tmp_path, target):
    """BUILD on a class: in Python's own unpickler this sets attributes of torch's function for the whole process."""
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pth")
    state = b"N}X\x05\x00\x00\x00named" + b"X\x01\x00\x00\x00y" + b"s\x86"  # (None, {"named": "y"})
    path = repack(tmp_path / "plain.pth", tmp_path / "x.pth", data_pkl=b"\x80\x02c" + target + b"\n" + state + b"b.")
    with pytest.raises(DataError, match="not a checkpoint"):
        read_checkpoint(path)
    assert Foreign.named == ""
    assert read_checkpoint(tmp_path / "plain.pth").weights["w"].tolist() == [1, 1]


def test_truncated_and_damaged_files(recbole, tmp_path):
    whole = recbole.save(tmp_path / "x.pth", recbole.random_weights(5), recbole.settings).read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut.pth"):
            read_checkpoint(tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated; copy it again"):
        read_checkpoint(tmp_path / "cut.pth")
    place = whole.index(recbole.random_weights(5)["LayerNorm.bias"].numpy().tobytes())
    (tmp_path / "bit.pth").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(DataError, match="damaged"):
        read_checkpoint(tmp_path / "bit.pth")


def test_truncated_legacy_file(tmp_path):
    torch.save({"w": torch.ones(50)}, tmp_path / "x.pth", **LEGACY)
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content[:-20])
    with pytest.raises(DataError, match="damaged"):
        read_checkpoint(tmp_path / "x.pth")


def test_other_files(tmp_path):
    (tmp_path / "text.pth").write_text("weights\n")
    (tmp_path / "other.pth").write_bytes(pickle.dumps({"state_dict": {}}))
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    torch.save({"state_dict": {}, "w": torch.ones(1)}, tmp_path / "nothing.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("notes.txt", "hello")
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pth")
    repack(tmp_path / "plain.pth", tmp_path / "program.pth", constants_pkl=b"\x80\x02).")
    repack(tmp_path / "plain.pth", tmp_path / "small.pth", zipfile.ZIP_DEFLATED)
    repack(tmp_path / "plain.pth", tmp_path / "short.pth", data_0=b"1234")
    repack(tmp_path / "plain.pth", tmp_path / "big.pth", byteorder=b"big")
    torch.save({"w": torch.ones(1).expand(10**9)}, tmp_path / "wide.pth")
    for name, told in {
        "absent": "no such file",
        "text": "not a checkpoint",
        "other": "a pickle, but not of torch.save",
        "empty": "no state_dict",
        "nothing": "no state_dict",
        "zip": "a zip archive, but not of torch.save",
        "program": "TorchScript",
        "small": "compressed",
        "short": "4 bytes, expected 8",
        "big": "big-endian",
        "wide": "in a storage of 4 bytes",
    }.items():
        with pytest.raises(DataError, match=told):
            read_checkpoint(tmp_path / f"{name}.pth")
