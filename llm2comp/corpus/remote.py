"""Paths in object stores (`s3://`, `gs://`) and on the Hugging Face Hub (`hf://`), as readers of corpora need them.

Files are read through `pyarrow.fs`, which takes credentials, regions and endpoints from where the store's tools look
for them, such as AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and ~/.aws. Of these, S3 is tested; the other two are not yet.
"""

import glob
import io
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, NamedTuple

from llm2comp.errors import CorpusError, one_line

__all__ = ["RemotePath", "is_remote", "list_files", "to_path"]

_SCHEMES = ("s3", "gs", "hf")
_BUFFER_BYTES = 2**22
_LISTING_SECONDS = 30  # a folder is listed several times before it is read
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|credential|forbidden|unauthori[sz]ed|\b40[13]\b", re.IGNORECASE
)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "hf": "HF_TOKEN, or `hf auth login`",
}


def is_remote(corpus: object) -> bool:
    """Whether the name of a corpus is that of a file, folder or pattern in a store."""
    # pathlib makes s3:/bucket of s3://bucket
    scheme, separator, _ = str(corpus).partition(":/" if isinstance(corpus, Path) else "://")
    return bool(separator) and scheme in _SCHEMES


def to_path(corpus: str | Path) -> Path:
    """The path that the name stands for."""
    if isinstance(corpus, RemotePath):
        return corpus
    return RemotePath(str(corpus)) if is_remote(corpus) else Path(corpus)


class _State(NamedTuple):
    """What `stat` tells of a file, under the names of `os.stat_result`."""

    st_mode: int
    st_size: int
    st_mtime: float
    st_mtime_ns: int


class RemotePath(PosixPath):
    """A path such as `s3://bucket/folder/file.jsonl`.

    Raises:
        CorpusError: By every method that asks the store, if it cannot be reached or refuses access.
    """

    def __str__(self) -> str:
        scheme, separator, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}" if separator and scheme in _SCHEMES else super().__str__()

    @property
    def scheme(self) -> str:
        """`s3`, `gs` or `hf`."""
        return self.parts[0].removesuffix(":")

    @property
    def key(self) -> str:
        """Bucket and key, as pyarrow names the file."""
        return "/".join(self.parts[1:])

    def exists(self, **_: Any) -> bool:
        """Whether there is a file or folder; a missing bucket is an error."""
        there = bool(self._info().type.name != "NotFound")
        if not there and self.scheme != "hf" and len(self.parts) > 2:
            bucket = RemotePath(*self.parts[:2])
            if bucket._info().type.name == "NotFound":
                raise CorpusError(f"{self}: there is no bucket {bucket}, or it is not yours")
        return there

    def is_dir(self, **_: Any) -> bool:
        """Whether it is a folder, which is a common beginning of keys in most stores."""
        return bool(self._info().type.name == "Directory")

    def is_file(self, **_: Any) -> bool:
        """Whether it is a file."""
        return bool(self._info().type.name == "File")

    def stat(self, **_: Any) -> Any:
        """Size in bytes and time of the last change."""
        info = self._info()
        changed = info.mtime_ns or 0
        return _State(stat.S_IFREG if self.is_file() else stat.S_IFDIR, info.size or 0, changed / 1e9, changed)

    def open(self, *_: Any, **__: Any) -> BinaryIO:  # type: ignore[override]  # no other mode
        """The file, for reading bytes."""
        with _one_line(self):
            file = _file_system(self.scheme, self.parts[1]).open_input_file(self.key)
        return io.BufferedReader(file, _BUFFER_BYTES)

    def _info(self) -> Any:
        if len(self.parts) < 2:
            raise CorpusError(f"{self.scheme}:// without a name behind it; expected {self.scheme}://BUCKET/FOLDER")
        with _one_line(self):
            return _file_system(self.scheme, self.parts[1]).get_file_info(self.key)


def list_files(folder: RemotePath) -> list[RemotePath]:
    """All files below a folder, or that match a pattern, in order, without hidden ones."""
    parts = folder.parts
    fixed = next((row for row, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = RemotePath(*parts[:fixed])
    names = _list(root, int(time.monotonic() / _LISTING_SECONDS))
    fits = re.compile(_to_expression(parts[fixed:]))
    return [root / name for name in names if fits.fullmatch(name)]


def _to_expression(parts: tuple[str, ...]) -> str:
    """A pattern of shells as a regular expression; without parts, all that is not hidden."""
    if not parts:
        return r"(?!\.)(?!.*/\.).*"
    folders = [r"(?:[^/.][^/]*/)*" if part == "**" else _to_part(part) + "/" for part in parts[:-1]]
    last = r"(?:[^/.][^/]*/)*[^/.][^/]*" if parts[-1] == "**" else _to_part(parts[-1])
    return "".join((*folders, last))


def _to_part(part: str) -> str:
    hidden = "" if part.startswith(".") else r"(?!\.)"
    return hidden + "".join(map(_to_token, re.split(r"(\*|\?|\[!?[^\]]+\])", part)))


def _to_token(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token.replace("[!", "[^", 1)
    return {"*": "[^/]*", "?": "[^/]"}.get(token) or re.escape(token)


@lru_cache(maxsize=16)
def _list(root: RemotePath, moment: int) -> tuple[str, ...]:
    """Paths of all files from the root, in order."""
    from pyarrow.fs import FileSelector, FileType

    with _one_line(root):
        store = _file_system(root.scheme, root.parts[1])
        files = store.get_file_info(FileSelector(root.key, recursive=True, allow_not_found=True))
        return tuple(sorted(os.path.relpath(file.path, root.key) for file in files if file.type == FileType.File))


@cache
def _file_system(scheme: str, bucket: str) -> Any:
    from pyarrow import fs

    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem()))
    return fs.FileSystem.from_uri(f"{scheme}://{bucket}")[0]


@contextmanager
def _one_line(path: RemotePath) -> Iterator[None]:
    """Errors of a store as a CorpusError of one line."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # of pyarrow, of a dozen types with fsspec
        reason = one_line(error)
        if re.search("bucket.*not found|NO_SUCH_BUCKET|NoSuchBucket|RepositoryNotFound", reason, re.IGNORECASE):
            raise CorpusError(f"{path}: there is no such bucket or repository, or it is not yours") from error
        hint = f"; credentials are read from {_CREDENTIALS[path.scheme]}" if _DENIED.search(reason) else ""
        raise CorpusError(f"{path}: cannot be read: {reason}{hint}") from error
