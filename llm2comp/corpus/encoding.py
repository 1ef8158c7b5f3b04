"""Whether a text file that is not UTF-8 is in Windows-1252, judged by all its bytes.

It is read so if its bytes are not UTF-8, none of its letters is written as UTF-8 writes it (one broken letter in UTF-8
is a malformed line), all bytes stand for characters in Windows-1252, and most letters are those of ASCII, as in Western
European languages. One line says so, with such a letter among its neighbours.
"""

import codecs
import logging
import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

from llm2comp.corpus.remote import RemotePath
from llm2comp.corpus.text import open_binary, readable
from llm2comp.corpus.transcode import find_mark
from llm2comp.errors import CorpusError

__all__ = ["choose_encoding", "find_windows_sample"]

_WINDOWS = "windows-1252"
_BLOCK_BYTES = 2**20
_MOST_HIGH = 0.3  # share of letters outside ASCII: 0.12 in Icelandic, 0.9 in Russian
_REMOTE_BYTES = 2**22  # read of a file in a store, which is not fetched twice
_CHECKED_BYTES = 4096
_SHOWN = 20  # bytes on each side of the first letter outside ASCII
_HIGH = re.compile(rb"[\x80-\xff]")
_ASCII_LETTER = re.compile(rb"[A-Za-z]")
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_UTF8_LETTER = re.compile("[^\x00-\x7f\udc80-\udcff]")  # in text whose other bytes are surrogates
_logger = logging.getLogger(__name__)


def choose_encoding(path: Path, given: str | None) -> str | None:
    """The encoding to read a text file in; None: UTF-8, or what its byte order mark says.

    Args:
        path: The file, which is read once, or a second time if it is not UTF-8. A pipe is left alone.
        given: What the user says.

    Raises:
        CorpusError: The file cannot be read, or is UTF-16 without a byte order mark.
    """
    if given is not None or not path.is_file():
        return given
    with readable(path):
        state = path.stat()
    guess = _guess(path, state.st_size, state.st_mtime_ns)
    if guess is not None:
        _note(path, guess)
        return _WINDOWS
    return None


def _check_not_utf16(path: Path) -> None:
    start = next(_blocks(path), b"")[:_CHECKED_BYTES]
    halves = {"be": start[::2], "le": start[1::2]}  # of ASCII, these bytes are 0
    for order, half in halves.items():
        if half and half.count(0) > len(half) // 2 and find_mark(start) is None:
            raise CorpusError(
                f"{path}: it looks like UTF-16 without a byte order mark; name the encoding: --encoding utf-16-{order}"
            )


@lru_cache(maxsize=4096)  # a file is read several times
def _guess(path: Path, size: int, changed: int) -> str | None:
    """Text around the first letter outside ASCII, if the file is in Windows-1252."""
    _check_not_utf16(path)
    return None if _is_utf8(path) else find_windows_sample(_blocks(path))


def find_windows_sample(blocks: Iterable[bytes]) -> str | None:
    """Text around the first letter outside ASCII, if a text that is not UTF-8 is in Windows-1252."""
    high = ascii_letters = 0
    sample = ""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    for block in blocks:
        if _UNDEFINED.search(block) or _UTF8_LETTER.search(decoder.decode(block)):
            return None
        high += len(_HIGH.findall(block))
        ascii_letters += len(_ASCII_LETTER.findall(block))
        if not sample and (first := _HIGH.search(block)):
            start = max(0, first.start() - _SHOWN)
            sample = " ".join(block[start : first.end() + _SHOWN].decode(_WINDOWS).split())
    return sample if high <= _MOST_HIGH * (high + ascii_letters) else None


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in _blocks(path):
            decoder.decode(block)
    except UnicodeDecodeError:
        return False
    return True


def _blocks(path: Path) -> Iterator[bytes]:
    with readable(path), open_binary(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block
            if isinstance(path, RemotePath) and stream.tell() >= _REMOTE_BYTES:
                return  # what is not UTF-8 after them is an error with its line


@cache
def _note(path: Path, sample: str) -> None:
    _logger.warning(
        '%s: not UTF-8, and read as Windows-1252, with "%s" in it (--encoding NAME chooses another)', path, sample
    )
