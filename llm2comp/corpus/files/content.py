"""What a reader finds in a file, and the text of bytes that must be UTF-8."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llm2comp.corpus.documents import Markup

__all__ = ["FileContent", "Note", "decode_utf8"]


class Note(NamedTuple):
    """What the summary says of a file.

    Attributes:
        message: Goes on behind the name of the file or a number of files, such as `read as Windows-1252`.
        sample: Text of the file that shows it; may be empty.
        hint: What the user can do about it, for a line on this file alone; may be empty.
    """

    message: str
    sample: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content of one file.

    Attributes:
        title: May be empty.
        text: May be empty.
        metadata: Values by name, such as front matter.
        markup: How the text shows its structure.
        pages: Offsets in characters at which the pages of the text begin; empty: it has none.
        note: What the summary says of the file; None: nothing.
    """

    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    markup: Markup = Markup.PLAIN
    pages: tuple[int, ...] = ()
    note: Note | None = None


def decode_utf8(data: bytes) -> str:
    r"""The text, without a byte order mark; `\r\n` and `\r` become `\n`.

    Raises:
        UnicodeDecodeError: The bytes are not UTF-8.
    """
    text = data.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
