"""The text of a page: what it is encoded in, judged by its byte order mark, its bytes and what it names."""

import codecs
import re

from llm2comp.corpus.encoding import find_windows_sample
from llm2comp.corpus.files.content import Note
from llm2comp.corpus.transcode import find_mark

__all__ = ["decode_page"]

_HEAD_BYTES = 4096
_CHARSET = re.compile(rb"""(?i)<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]+)""")
_MARKUP = re.compile(
    rb"(?is)<(script|style)\b.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)|<[^>]*(?:>|\Z)|&[a-z]+;"  # what shows no language
)
_UTF8 = frozenset({"utf-8", "utf-8-sig"})
_WIDER = {  # as browsers read them: encodings that pages with these names are mostly in
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
}


def decode_page(data: bytes) -> tuple[str, Note | None]:
    """The page, and a note if its encoding is not the one it names, or was guessed.

    A byte order mark goes before all else. Bytes that are UTF-8 are read so, since hardly any text in another encoding
    is by chance; others as the page says, if they all fit, or else as Windows-1252, if they look like it.

    Raises:
        ValueError: The bytes fit none of these; the message goes on behind `is`.
    """
    mark = "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else find_mark(data[:4])
    named = _find_charset(data)
    if mark is not None:
        if (page := _decode(data, mark)) is None:
            raise ValueError(f"not the {mark.removesuffix('-sig').upper()} that its first bytes announce")
        return page, None
    if not data.isascii() and (page := _decode(data, "utf-8")) is not None:
        return page, None if named in (None, *_UTF8) else Note("read as UTF-8 in spite of another declared charset")
    if (page := _decode(data, named or "utf-8")) is not None:
        return page, None
    if (sample := _find_sample(data)) is not None:
        return data.decode("cp1252"), Note("read as Windows-1252", sample)
    raise ValueError("not UTF-8" if named in (None, *_UTF8) else f"neither UTF-8 nor the {named} that it names")


def _find_charset(data: bytes) -> str | None:
    """The encoding that the head names, as Python names it; None: it names none that is known."""
    match = _CHARSET.search(data[:_HEAD_BYTES])
    if match is None:
        return None
    try:
        name = codecs.lookup(match[1].decode("ascii")).name
        readable = b"<a".decode(name) == "<a"  # not so for UTF-16 and EBCDIC, which the page cannot be
    except (LookupError, UnicodeError):  # a codec that is not of text is a LookupError
        return None
    return _WIDER.get(name, name) if readable else None


def _decode(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeError:
        return None


def _find_sample(data: bytes) -> str | None:
    """Text around the first letter outside ASCII, if a page that is not UTF-8 is taken for Windows-1252.

    Its share of ASCII letters is that of its text, without markup.
    """
    of_page, of_text = (find_windows_sample([part]) for part in (data, _MARKUP.sub(b" ", data)))
    return None if of_page is None or of_text is None else of_text or of_page
