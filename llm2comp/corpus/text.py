"""Text files, plain or compressed (.gz, .xz, .zst), read as streams of UTF-8; every failure is a CorpusError.

A file that begins with the byte order mark of UTF-16 or UTF-32 is read in that encoding, and one line says so.
"""

import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import zstandard

from llm2comp.corpus.remote import RemotePath, to_path
from llm2comp.corpus.transcode import Transcoder, find_mark
from llm2comp.errors import CorpusError

__all__ = [
    "COMPRESSED_SUFFIXES",
    "NAME_ENCODING",
    "NOT_UTF8",
    "STANDARD_INPUT",
    "open_binary",
    "open_text",
    "read_bytes",
    "read_lines",
    "readable",
    "uncompressed_name",
]

COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst")
STANDARD_INPUT = Path("-")
NAME_ENCODING = ", or name its encoding (--encoding NAME)"
NOT_UTF8 = f"not UTF-8; convert the file with iconv{NAME_ENCODING}"

_FIRST_LINE_BYTES = 2**20  # without a line feed in them, but with a carriage return, carriage returns end the lines
_ZSTD_INPUT_BYTES = 16 * 1024  # small, because repetitive text can expand a thousandfold
_ZSTD_WINDOW_BYTES = 2**31  # for `zstd --long=31`; only files written with it take this memory


def uncompressed_name(path: Path) -> str:
    """The file's name without a compression suffix: `corpus.jsonl` for `folder/corpus.jsonl.gz`."""
    return path.stem if path.suffix.lower() in COMPRESSED_SUFFIXES else path.name


def open_text(path: str | Path, encoding: str | None = None) -> TextIO:
    """The file, opened for reading as UTF-8 text and decompressed according to its suffix.

    A byte order mark is dropped.

    Args:
        path: The file.
        encoding: Its encoding; None: UTF-8, or what its byte order mark says.

    Raises:
        CorpusError: On opening, if the file is missing or unreadable; on reading, if its archive is damaged or
            truncated or a line is not UTF-8 (the message names the line).
    """
    path = to_path(path)
    with readable(path):
        return _CheckedText(open_binary(path, encoding), path)


def read_bytes(path: str | Path, encoding: str | None = None) -> bytes:
    """All bytes of the file, decompressed according to its suffix, in UTF-8.

    Args:
        path: The file.
        encoding: As for `open_text`; "utf-8": the bytes as they are.

    Raises:
        CorpusError: The file is missing or unreadable, or its archive is damaged or truncated.
    """
    path = to_path(path)
    with readable(path), open_binary(path, encoding) as stream:
        return stream.read()


def read_lines(path: str | Path, encoding: str | None = None) -> Iterator[tuple[int, bytes]]:
    r"""Lines as (number from 1, bytes with their `\n`), decompressed according to the suffix of the file.

    A byte order mark is dropped. In a file that has carriage returns and no line feeds, each carriage return ends a
    line and becomes `\n`.

    Args:
        path: The file.
        encoding: As for `open_text`; lines are UTF-8 in any case.

    Raises:
        CorpusError: The file is missing or unreadable, or its archive is damaged or truncated.
    """
    path = to_path(path)
    with readable(path), open_binary(path, encoding) as stream:
        for number, line in enumerate(_split_lines(stream), start=1):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _split_lines(stream: BinaryIO) -> Iterator[bytes]:
    first = stream.readline(_FIRST_LINE_BYTES)
    if b"\r" in first[:-1] and not first.endswith(b"\n"):
        yield from _split_at_returns(first, stream)
        return
    if first and not first.endswith(b"\n"):
        first += stream.readline()
    if first:
        yield first
    yield from stream


def _split_at_returns(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Lines that a carriage return ends, as files of the classic Mac OS have them."""
    rest = first
    while True:
        *lines, rest = rest.split(b"\r")
        for line in lines:
            yield line + b"\n"
        block = stream.read(_FIRST_LINE_BYTES)
        if not block:
            break
        rest += block
    if rest:
        yield rest


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns errors of opening and reading a file into a CorpusError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorpusError(f"{path}: no such file or folder") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise CorpusError(
            f"{path}: truncated or damaged {path.suffix} archive ({error}); fetch or write the file again"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror or error}") from error


class _CheckedText(io.TextIOWrapper):
    """Text stream whose reading methods raise CorpusError, with the line, instead of a dozen other errors."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream, encoding="utf-8-sig")
        self._path = path

    def read(self, size: int | None = -1, /) -> str:
        with self._checked():
            return super().read(size)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # typeshed names a parameter that CPython does not
        try:
            return super().readline(size)
        except Exception:
            with self._checked():  # only now: entering it for each line would take longer than reading
                raise

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            with readable(self._path):
                yield
        except UnicodeDecodeError as error:
            raise CorpusError(f"{self._path}:{_find_undecodable(self._path)}: {NOT_UTF8}") from error


def _find_undecodable(path: Path) -> int:
    """Number of the first line that is not UTF-8; text is decoded in blocks, so the file is read again."""
    for number, line in read_lines(path):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return number
    raise CorpusError(f"{path}: changed while it was read")


def open_binary(path: Path, encoding: str | None = None) -> BinaryIO:
    """Decompressed bytes of the file, in UTF-8."""
    stream = _open_decompressed(path)
    if encoding in ("utf-8", "utf-8-sig"):
        return stream
    if encoding is None:
        marked = find_mark(cast(io.BufferedReader, stream).peek(4)[:4])
        if marked is None:
            return stream
        return io.BufferedReader(cast(io.RawIOBase, Transcoder(stream, marked, path, marked=True)))
    return io.BufferedReader(cast(io.RawIOBase, Transcoder(stream, encoding, path, marked=False)))


def _open_decompressed(path: Path) -> BinaryIO:
    if path == STANDARD_INPUT:
        return io.BufferedReader(cast(io.RawIOBase, _StandardInput()))
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(cast(io.RawIOBase, gzip.open(_local_or_open(path), "rb")))
    if suffix == ".xz":
        return io.BufferedReader(cast(io.RawIOBase, lzma.open(_local_or_open(path), "rb")))
    if suffix == ".zst":
        return io.BufferedReader(_ZstdReader(path))
    return path.open("rb")


def _local_or_open(path: Path) -> Path | BinaryIO:
    return path.open("rb") if isinstance(path, RemotePath) else path


class _StandardInput(io.RawIOBase):
    """Bytes of standard input, which stays open after reading."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if sys.stdin is None:
            raise OSError("there is no standard input")
        block = cast(io.BufferedReader, sys.stdin.buffer).read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)


class _ZstdReader(io.RawIOBase):
    """Decompressed bytes of a .zst file of one or more frames.

    The reader of `zstandard` treats a truncated file as a short one; this one raises EOFError.
    """

    def __init__(self, path: Path) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._frame: Any = None
        self._pending = b""
        self._rest = b""
        self._file = path.open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._pending and self._decompress():
            pass
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def _decompress(self) -> bool:
        """Decompresses the next block into `_pending`; False at the end of the file."""
        block = self._rest or self._file.read(_ZSTD_INPUT_BYTES)
        if not block:
            if self._frame is not None:
                raise EOFError("the file ends inside a zstd frame")
            return False
        self._frame = self._frame or self._context.decompressobj()
        try:
            self._pending, self._rest = self._frame.decompress(block), b""
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
