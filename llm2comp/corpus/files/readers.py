"""Which reader reads a file, by the suffix of its name."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.content import FileContent, decode_utf8
from llm2comp.corpus.text import uncompressed_name

__all__ = ["READERS", "Reader", "suffix_of"]


class Reader(NamedTuple):
    """How files of one kind are read.

    Attributes:
        read: Content of a file's bytes, decompressed.
        modules: Modules of the extra `files` that it needs.
        named: Whether a document without a title has the name of its file as title.
        code: Whether files of this kind are only read where the corpus names them, with their whole name as title.
        encoding: Whether the bytes are text in UTF-8 unless they show or the user says otherwise ("text"), a page that
            names its encoding unless the user does ("page"), or no text ("").
    """

    read: Callable[[bytes], FileContent]
    modules: tuple[str, ...] = ()
    named: bool = False
    code: bool = False
    encoding: Literal["text", "page", ""] = ""

    def missing(self) -> str | None:
        """The first module that is not installed, if any."""
        return next((module for module in self.modules if find_spec(module) is None), None)


def _reader_in(module: str) -> Callable[[bytes], FileContent]:
    """The function `read_MODULE` of a module of this room, imported at first use: most commands read no such file."""

    def read(data: bytes) -> FileContent:
        content: FileContent = getattr(import_module(f"llm2comp.corpus.files.{module}"), f"read_{module}")(data)
        return content

    return read


def _read_text(data: bytes) -> FileContent:
    return FileContent("", decode_utf8(data))


def _read_code(data: bytes) -> FileContent:
    return FileContent("", decode_utf8(data), markup=Markup.CODE)


_CODE = (  # noqa: SIM905
    ".py .pyi .js .mjs .ts .tsx .jsx .java .kt .scala .go .rs .c .h .cc .cpp .hpp .cs .swift .m .rb .php .pl .lua .r "
    ".jl .sh .sql .ex .exs .hs .ml .clj .dart .vue"
).split()
_HTML = Reader(_reader_in("html"), ("selectolax",), named=True, encoding="page")
_MARKDOWN = Reader(_reader_in("markdown"), encoding="text")

READERS = {
    ".txt": Reader(_read_text, encoding="text"),
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".rst": Reader(_reader_in("rst"), ("docutils", "selectolax"), encoding="text"),
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".pdf": Reader(_reader_in("pdf"), ("pypdfium2",), named=True),
    ".docx": Reader(_reader_in("docx"), ("mammoth", "selectolax"), named=True),
    ".epub": Reader(_reader_in("epub"), ("selectolax",), named=True),
    **dict.fromkeys(_CODE, Reader(_read_code, named=True, code=True, encoding="text")),
}
"""Readers by suffix in lower case."""


def suffix_of(path: Path) -> str:
    """The suffix in lower case, without that of a compression."""
    return Path(uncompressed_name(path)).suffix.lower()
