"""Which reader reads a file, by the suffix of its name."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from llm2comp.corpus.files.content import FileContent, decode_utf8
from llm2comp.corpus.files.docx import read_docx
from llm2comp.corpus.files.epub import read_epub
from llm2comp.corpus.files.html import read_html
from llm2comp.corpus.files.markdown import read_markdown
from llm2comp.corpus.files.pdf import read_pdf
from llm2comp.corpus.files.rst import read_rst
from llm2comp.corpus.text import uncompressed_name

__all__ = ["READERS", "Reader", "suffix_of"]


class Reader(NamedTuple):
    """How files of one kind are read.

    Attributes:
        read: Content of a file's bytes, decompressed.
        modules: Modules of the extra `files` that it needs.
        named: Whether a document without a title has the name of its file as title.
        encoding: Whether the bytes are text in UTF-8 unless they show or the user says otherwise ("text"), a page that
            names its encoding unless the user does ("page"), or no text ("").
    """

    read: Callable[[bytes], FileContent]
    modules: tuple[str, ...] = ()
    named: bool = False
    encoding: Literal["text", "page", ""] = ""

    def missing(self) -> str | None:
        """The first module that is not installed, if any."""
        return next((module for module in self.modules if find_spec(module) is None), None)


def _read_text(data: bytes) -> FileContent:
    return FileContent("", decode_utf8(data))


_HTML = Reader(read_html, ("selectolax",), named=True, encoding="page")
_MARKDOWN = Reader(read_markdown, encoding="text")

READERS = {
    ".txt": Reader(_read_text, encoding="text"),
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".rst": Reader(read_rst, ("docutils", "selectolax"), encoding="text"),
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".pdf": Reader(read_pdf, ("pypdfium2",), named=True),
    ".docx": Reader(read_docx, ("mammoth", "selectolax"), named=True),
    ".epub": Reader(read_epub, ("selectolax",), named=True),
}
"""Readers by suffix in lower case."""


def suffix_of(path: Path) -> str:
    """The suffix in lower case, without that of a compression."""
    return Path(uncompressed_name(path)).suffix.lower()
