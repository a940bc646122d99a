"""Up to the Hub and down again, the Hub being a folder: which files travel, and what opens them there."""

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import polars as pl
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi, RepoUrl
from huggingface_hub.utils import filter_repo_objects

from retr_hf.data.domain import PreparedDomain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.text_embeddings import PARTIAL_DIR, embed_catalog
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import AUGMENTED_EMBEDDINGS_FILE, EMBEDDINGS_FILE

COMMIT = "0" * 40


class FolderHub:
    """Repositories as a Hub cache keeps them: what ``HfApi`` uploads, ``snapshot_download`` finds offline."""

    def __init__(self, cache: Path):
        self.cache, self.calls = cache, []

    def files(self, repo_id: str) -> Path:
        return self.cache / f"datasets--{repo_id.replace('/', '--')}" / "snapshots" / COMMIT

    def create_repo(self, api, repo_id, *, repo_type, private, exist_ok):
        self.calls.append(("create_repo", repo_id, repo_type, private, exist_ok, api.token))
        return RepoUrl(f"https://huggingface.co/datasets/{repo_id}")

    def create_branch(self, api, repo_id, *, branch, repo_type, exist_ok):
        self.calls.append(("create_branch", repo_id, branch, repo_type, exist_ok))

    def upload_folder(
        self, api, *, repo_id, folder_path, repo_type, revision, commit_message, allow_patterns, delete_patterns
    ):
        self.calls.append(("upload_folder", repo_id, repo_type, revision, commit_message))
        snapshot = self.files(repo_id)
        for old in filter_repo_objects(listing(snapshot), allow_patterns=delete_patterns):
            (snapshot / old).unlink()
        for name in filter_repo_objects(listing(folder_path), allow_patterns=allow_patterns):
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder_path / name, snapshot / name)
        branch = snapshot.parents[1] / "refs" / (revision or "main")
        branch.parent.mkdir(exist_ok=True)
        branch.write_text(COMMIT)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = FolderHub(tmp_path / "hub")
    for name in ("create_repo", "create_branch", "upload_folder"):
        method = getattr(hub, name)
        monkeypatch.setattr(HfApi, name, lambda api, *args, method=method, **more: method(api, *args, **more))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return hub


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def domain(tmp_path):
    rows = [["a", "b", "c", "d"], ["b", "c"], ["c", "d", "a"]]
    columns = {
        "user_id": ["u", "v", "w"],
        "item_ids": rows,
        "timestamps": [list(range(1000, 1000 + len(row))) for row in rows],
    }
    items = pl.DataFrame({"item_id": list("abcd"), "text": ["red", "blue", "red lamp", ""]})
    raw = RawDomain(pl.DataFrame(columns), items, reader="test")
    write_domain(raw, tmp_path / "shop", k_core=0, num_negatives=1)
    embed_catalog(tmp_path / "shop", "hashing:8", progress=False)
    return PreparedDomain(tmp_path / "shop")


def test_up_and_down(domain, hub):
    embed_catalog(domain.path, "hashing:8", word_drop=0.2, progress=False)
    url = domain.push_to_hub("me/shop", private=True, token="secret")
    assert url == "https://huggingface.co/datasets/me/shop"
    assert hub.calls == [
        ("create_repo", "me/shop", "dataset", True, True, "secret"),
        ("upload_folder", "me/shop", "dataset", None, "Prepared domain shop"),
    ]
    assert listing(hub.files("me/shop")) == listing(domain.path), "all that prepare and embed left"
    opened = PreparedDomain.from_pretrained("me/shop")
    assert opened.name == "shop" and opened.statistics == domain.statistics
    np.testing.assert_array_equal(opened.split("test").item_ids, domain.split("test").item_ids)
    np.testing.assert_array_equal(opened.catalog().embeddings, domain.catalog().embeddings)
    assert opened.catalog().augmented_embeddings is not None
    assert PreparedDomain.from_pretrained(domain.path).path == domain.path, "a folder is a folder"


def test_only_what_is_finished_travels_and_nothing_stale_stays(domain, hub):
    embed_catalog(domain.path, "hashing:8", word_drop=0.2, progress=False)
    domain.push_to_hub("me/shop", revision="v2")
    assert ("create_branch", "me/shop", "v2", "dataset", True) in hub.calls
    assert hub.calls[-1][3] == "v2"
    (hub.files("me/shop") / ".gitattributes").write_text("the Hub's own")
    (domain.path / AUGMENTED_EMBEDDINGS_FILE).unlink()
    (domain.path / PARTIAL_DIR).mkdir()
    (domain.path / PARTIAL_DIR / "chunk-000000.safetensors").write_bytes(b"half")
    (domain.path / f".{EMBEDDINGS_FILE}.partial").write_bytes(b"half")
    (domain.path / "notes.txt").write_text("mine")
    domain.push_to_hub("me/shop", revision="v2")
    found = listing(hub.files("me/shop"))
    assert [name for name in found if "partial" in name or "notes" in name or "word_drop" in name] == []
    assert {".gitattributes", EMBEDDINGS_FILE, "README.md", "domain.json", "interactions/train.parquet"} <= set(found)
    assert PreparedDomain.from_pretrained("me/shop", revision="v2").name == "shop"


@pytest.mark.parametrize("name", ["me/nothing", "no such/folder/here"])
def test_neither_folder_nor_repository(hub, name):
    with pytest.raises(DataError, match=f"{name}: expected the folder of a prepared domain or a dataset repository"):
        PreparedDomain.from_pretrained(name)


@pytest.mark.parametrize("streaming", [False, True])
def test_every_config_of_the_card_opens(domain, streaming):
    dtypes = {"user_id": "string", "item_ids": "int32", "timestamps": "int64"}
    counts = {"train": 3, "validation": 2, "test": 2}
    for config, rows, types in (
        ("interactions", counts, dtypes),
        ("items", {"train": 4}, {"item_id": "string", "text": "string"}),
        ("negatives", {"validation": 2, "test": 2}, {"user_id": "string", "negatives": "int32"}),
    ):
        splits = load_dataset(str(domain.path), config, streaming=streaming)
        assert {split: sum(1 for _ in found) for split, found in splits.items()} == rows
        for found in splits.values():
            # a stream of parquet files tells its features with the first row
            features = found.features or found._resolve_features().features
            told = {name: getattr(feature, "feature", feature).dtype for name, feature in features.items()}
            assert {name: dtype.removeprefix("large_") for name, dtype in told.items()} == types
    first = next(iter(load_dataset(str(domain.path), streaming=streaming)["test"]))
    assert first == {"user_id": "u", "item_ids": [1, 2, 3, 4], "timestamps": [1000, 1001, 1002, 1003]}
