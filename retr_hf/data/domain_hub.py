"""A prepared domain as a dataset repository of the Hub: which of its files are public, up and down."""

from pathlib import Path

from ..errors import DataError
from ..model.item_catalog import AUGMENTED_EMBEDDINGS_FILE, CATALOG_FILE, EMBEDDINGS_FILE, ITEMS_FILE
from .schema import DOMAIN_FILE, INTERACTIONS_DIR, NEGATIVES_DIR, PIVOTAL_DIR

# By name, so that a folder of half-made embeddings, or whatever else lies beside, is never among them.
PUBLIC_FILES = [
    "README.md",
    *(DOMAIN_FILE, CATALOG_FILE, ITEMS_FILE, EMBEDDINGS_FILE, AUGMENTED_EMBEDDINGS_FILE),
    *(f"{folder}/*.parquet" for folder in (INTERACTIONS_DIR, NEGATIVES_DIR, PIVOTAL_DIR)),
]


def upload(
    folder: Path,
    repo_id: str,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """The public files of a prepared domain -> one commit; see ``PreparedDomain.push_to_hub``."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(url.repo_id, branch=revision, repo_type="dataset", exist_ok=True)
    api.upload_folder(
        repo_id=url.repo_id,
        folder_path=folder,
        repo_type="dataset",
        revision=revision,
        commit_message=commit_message,
        allow_patterns=PUBLIC_FILES,
        delete_patterns=PUBLIC_FILES,
    )
    return str(url)


def download(repo_id: str, revision: str | None, token: str | bool | None) -> Path:
    """The folder in the cache that holds a repository's public files.

    Raises:
        DataError: no such repository, or none that can be reached and none in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            repo_id, repo_type="dataset", revision=revision, token=token, allow_patterns=PUBLIC_FILES
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise DataError(
            f"{repo_id}: expected the folder of a prepared domain or a dataset repository of the Hub (owner/name), "
            f"found neither; scripts/prepare.py makes the one, push_to_hub the other\n{type(error).__name__}: {error}"
        ) from error
    return Path(found)
