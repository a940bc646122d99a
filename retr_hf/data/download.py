"""Downloads of the raw files that have a public address: progress, resume, checksum, and whole files only.

A file is written to NAME.part and renamed when its size (and checksum, where the publisher gives one) is right; an
interrupted download goes on where it stopped, if the server can do that and the file there is still the same.
"""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tqdm.auto import tqdm

from ..errors import DataError

_CHUNK = 2**18  # bytes
_TIMEOUT = 60  # seconds without a byte
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"


@dataclass(frozen=True)
class Source:
    """Where a reader's files are; ``{}`` in an address is the release.

    Attributes:
        inputs, items: addresses of the interactions and of the item table ("" where they come together).
        releases: names of the releases, each with the MD5 of ``inputs`` (as published) or None; empty: any name.
        unpacked: what the zip of ``inputs`` holds, to be passed on.
    """

    inputs: str
    items: str = ""
    releases: dict[str, str | None] = field(default_factory=dict)
    unpacked: str = ""


SOURCES = {
    "movielens": Source(
        "https://files.grouplens.org/datasets/movielens/ml-{}.zip",
        releases={
            "100k": "0e33842e24a9c977be4e0107933c0723",
            "1m": "c4d9eecfca2ab87c1945afe126590906",
            "20m": "cd245b17a1ae2cc31bb14903e1204af3",
            "32m": "d472be332d4daa821edc399621853b57",
        },
        unpacked="ml-{}",
    ),
    "amazon2018": Source(
        f"{_UCSD}/amazon_v2/categoryFilesSmall/{{}}.csv", items=f"{_UCSD}/amazon_v2/metaFiles2/meta_{{}}.json.gz"
    ),
    "amazon2023": Source(
        f"{_UCSD}/amazon_2023/benchmark/0core/rating_only/{{}}.csv.gz",
        items=f"{_UCSD}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz",
    ),
    "steam": Source(
        "https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz",
        items="https://cseweb.ucsd.edu/~wckang/steam_games.json.gz",
        releases={"all": None},
    ),
    "million-songs": Source(
        "http://millionsongdataset.com/sites/default/files/challenge/train_triplets.txt.zip",
        items="http://millionsongdataset.com/sites/default/files/AdditionalFiles/unique_tracks.txt",
        releases={"all": None},
        unpacked="train_triplets.txt",
    ),
    "online-retail": Source(
        "https://archive.ics.uci.edu/static/public/352/online+retail.zip",
        releases={"all": None},
        unpacked="Online Retail.xlsx",
    ),
}


def download(reader: str, folder: Path, release: str | None, source: Source | None = None) -> tuple[Path, Path | None]:
    """Fetches the raw files of a reader, unpacks them if they are zipped, and skips what is there.

    Args:
        reader: a key of SOURCES.
        folder: where to; made if it is not there.
        release: of the data set: a release of MovieLens, a category of Amazon; None where there is one only.
        source: instead of ``SOURCES[reader]``.

    Returns:
        what to pass as the input, and as the items (None where they come with the input, or not at all).

    Raises:
        DataError: no public address, no such release, a server that does not answer, a wrong checksum.
    """
    source = source or SOURCES.get(reader)
    if source is None:
        raise DataError(
            f"{reader}: has no public address; take the files from their publisher (see --help) and pass --input"
        )
    release = release or next(iter(source.releases), None) if len(source.releases) == 1 else release
    if release is None or (source.releases and release not in source.releases):
        known = ", ".join(source.releases) or "a category, such as Industrial_and_Scientific"
        raise DataError(f"{reader}: expected --release with one of: {known}; got {release}")
    inputs = fetch(source.inputs.format(release), folder, source.releases.get(release))
    if source.unpacked:
        inputs = unpack(inputs, folder, source.unpacked.format(release))
    return inputs, fetch(source.items.format(release), folder) if source.items else None


def fetch(address: str, folder: Path, md5: str | None = None) -> Path:
    """Downloads one file, or takes the one that is there (if its checksum is right, where there is one).

    Raises:
        DataError: the server does not answer or ends early (run again to go on), or the checksum is wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / unquote(Path(urlsplit(address).path).name)
    if target.is_file() and (md5 is None or _md5(target) == md5):
        return target
    partial, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.etag")
    done = partial.stat().st_size if partial.is_file() and tag.is_file() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "retr_hf"})
    if done:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            done = done if answer.status == 206 else 0  # 200: the server starts over, or the file is another by now
            _remember(tag, answer.headers)
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else None
            _write(answer, partial, done, total, target.name)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: what is there is whole, or too long
            partial.unlink()
            return fetch(address, folder, md5)
        raise DataError(f"{address}: expected the file, got {error.code} {error.reason}; has it moved?") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DataError(f"{address}: expected an answer, got: {error}; run the command again to go on") from error
    size = partial.stat().st_size
    if total is not None and size != total:
        raise DataError(f"{address}: ended after {size:,} of {total:,} bytes; run the command again to go on")
    if md5 is not None and (found := _md5(partial)) != md5:
        partial.unlink()
        tag.unlink(missing_ok=True)
        raise DataError(f"{address}: expected the published MD5 {md5}, got {found}; removed; run the command again")
    os.replace(partial, target)
    tag.unlink(missing_ok=True)
    return target


def unpack(archive: Path, folder: Path, wanted: str) -> Path:
    """Unpacks a zip; ``folder / wanted`` appears whole. Raises DataError if the zip is broken or has no such member."""
    target, partial = folder / wanted, folder / f"{archive.name}.unpacking"
    if target.exists():
        return target
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(partial)  # strips absolute paths and ".."
        if not (partial / wanted).exists():
            raise DataError(f"{archive}: expected {wanted} in it, but it holds {sorted(os.listdir(partial))[:5]}")
        os.replace(partial / wanted, target)
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive}: expected a zip, but it is broken ({error}); remove it and run again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _remember(tag: Path, headers) -> None:
    """What tells whether the file is still the same when the download goes on."""
    if same := headers.get("ETag") or headers.get("Last-Modified"):
        tag.write_text(same, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def _write(answer, partial: Path, done: int, total: int | None, name: str) -> None:
    with partial.open("r+b" if done else "wb") as file, tqdm(
        total=total, initial=done, unit="B", unit_scale=True, desc=name
    ) as bar:  # fmt: skip
        file.seek(done)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
