"""What the user says about files of text, and of separated values among them, that the files do not say."""

import codecs
from dataclasses import dataclass

from llm2comp.errors import SettingsError

__all__ = ["TableFormat"]


@dataclass(frozen=True, slots=True)
class TableFormat:
    """What the user says about the files of a corpus.

    Attributes:
        header: Whether the first line of .csv and .tsv files has the column names; None: if it has known ones.
        quotes: Whether fields of these files may be enclosed in quotes; None: in CSV they may, in TSV if the file
            shows it.
        separator: The character between their values, or "tab"; None: what the file shows.
        encoding: Encoding of all files of text; None: UTF-8, UTF-16 with a byte order mark, or, in .csv, .tsv, .txt and
            .md files that are not UTF-8 and look like it, Windows-1252.

    Raises:
        SettingsError: The separator is no character that can separate values, or Python knows no such encoding.
    """

    header: bool | None = None
    quotes: bool | None = None
    separator: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        separator = {"tab": "\t", "\\t": "\t"}.get(self.separator or "", self.separator)
        if separator is not None and (len(separator) != 1 or separator in '"\r\n\0'):
            raise SettingsError(f"separator is {self.separator!r:.40}, expected one character, such as ; or tab")
        object.__setattr__(self, "separator", separator)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _check_encoding(self.encoding))


def _check_encoding(name: str) -> str | None:
    """The usual name of the encoding.

    Raises:
        SettingsError: Python has no codec of this name that decodes text.
    """
    try:
        codec = codecs.lookup(name)
        codecs.getincrementaldecoder(name)().decode(b"")
        if not "".encode(name).decode(name) == "":
            raise LookupError
    except (LookupError, TypeError, UnicodeError, ValueError):
        raise SettingsError(
            f"encoding is {name!r:.40}, expected one that Python knows, such as utf-8, utf-16, windows-1252 or cp1251"
        ) from None
    return codec.name
