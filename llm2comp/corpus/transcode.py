"""Byte streams of text in other encodings, read as UTF-8."""

import codecs
import io
import logging
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from llm2comp.errors import CorpusError

__all__ = ["Transcoder", "find_mark"]

_BLOCK_BYTES = 2**18
_MARKS = {  # the longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_logger = logging.getLogger(__name__)


def find_mark(start: bytes) -> str | None:
    """The encoding whose byte order mark the bytes begin with; None for UTF-8 and for no mark."""
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), None)


class Transcoder(io.RawIOBase):
    """UTF-8 bytes of a stream of text in another encoding.

    Args:
        stream: The bytes; closed with this stream.
        encoding: A codec of Python.
        path: The file, for the message.
        marked: Whether a byte order mark was the only sign of the encoding.

    Raises:
        CorpusError: On reading, if bytes are no text in this encoding.
    """

    def __init__(self, stream: BinaryIO, encoding: str, path: Path, *, marked: bool) -> None:
        self._stream, self._encoding, self._path, self._marked = stream, encoding, path, marked
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._bytes = 0
        self._ended = False
        self._pending = b""

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Number of bytes put into the buffer; 0 at the end."""
        while not self._pending and not self._ended:
            self._pending = self._decode(self._stream.read(_BLOCK_BYTES))
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def _decode(self, block: bytes) -> bytes:
        self._ended = not block
        try:
            text = self._decoder.decode(block, final=self._ended).encode("utf-8")
        except UnicodeError as error:
            place = f"after {self._bytes:,} bytes" if self._bytes else "in the first block"
            if self._marked:
                reason = f"not UTF-8, and not the {self._encoding.upper()} that its first bytes announce ({place})"
            else:
                reason = f"not {self._encoding} ({place}); name its encoding with --encoding (encoding)"
            raise CorpusError(f"{self._path}: {reason}") from error
        if text and self._marked:
            _note_mark(self._path, self._encoding)
        self._bytes += len(block)
        return text

    def close(self) -> None:
        """Closes both streams."""
        if not self.closed:
            self._stream.close()
        super().close()


@cache  # a file may be read several times
def _note_mark(path: Path, encoding: str) -> None:
    _logger.warning("%s: begins with the byte order mark of %s, and is read so", path, encoding.upper())
