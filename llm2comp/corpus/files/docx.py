"""Word documents as Markdown, with the title and metadata of their properties."""

import io
import re
import zipfile
from typing import Any

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.archive import TextArchive, parse_xml
from llm2comp.corpus.files.content import FileContent
from llm2comp.corpus.files.docx_hidden import HiddenStyles, without_hidden
from llm2comp.corpus.files.html import parse_html, to_text
from llm2comp.corpus.files.markdown import without_title
from llm2comp.errors import CorpusError, one_line
from llm2comp.optional import optional_import

__all__ = ["read_docx"]

_STYLES = "p[style-name='Title'] => h1.title:fresh\np[style-name='Subtitle'] => p:fresh"
_BACK_LINKS = 'a[href^="#footnote-ref"], a[href^="#endnote-ref"]'  # from a note to its place, an arrow
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_STYLES_PART = "word/styles.xml"
_TERMS = "{http://purl.org/dc/terms/}"
_CORE = "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}"
_FIELDS = {
    "author": f"{_DUBLIN_CORE}creator",
    "subject": f"{_DUBLIN_CORE}subject",
    "keywords": f"{_CORE}keywords",
    "description": f"{_DUBLIN_CORE}description",
    "language": f"{_DUBLIN_CORE}language",
    "created": f"{_TERMS}created",
}


def read_docx(data: bytes) -> FileContent:
    """Content of a document: paragraphs, headings by their styles, lists, tables, and footnotes at its end.

    The title is that of its properties, or else of its first paragraph of the style Title, or its first heading of the
    first level. Comments, deleted and hidden text, headers and footers are left out.

    Raises:
        ValueError: It is damaged, protected by a password, or expands beyond the limits.
        CorpusError: mammoth is not installed.
    """
    mammoth = optional_import("mammoth", extra="files", needed_by="DOCX", error_type=CorpusError)
    archive = TextArchive(data, ".docx")
    if not any(name.startswith("word/") for name in archive.names):
        raise ValueError("a damaged .docx file: it has no document")
    texts = _copy_texts(archive)
    title, fields = _read_properties(archive)
    try:
        page = mammoth.convert_to_html(
            texts, style_map=_STYLES, convert_image=mammoth.images.img_element(lambda image: {})
        ).value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except Exception as error:  # what a damaged document raises within mammoth is of any type
        raise ValueError(f"a damaged .docx file ({type(error).__name__}: {one_line(error)})") from None
    tree = parse_html(page)
    for link in tree.css(_BACK_LINKS):
        link.decompose()
    heading = tree.css_first("h1.title") or tree.css_first("h1")
    title = title or (" ".join(heading.text(deep=True).split()) if heading is not None else "")
    return FileContent(title, without_title(title, to_text(tree)), fields, Markup.MARKDOWN)


def _copy_texts(archive: TextArchive) -> io.BytesIO:
    """An archive of the parts of XML alone, which have been checked: mammoth reads without limits."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as texts:
        hidden = HiddenStyles(archive.read_xml(_STYLES_PART) if _STYLES_PART in archive.names else b"")
        for name in sorted(archive.names):
            if name.endswith((".xml", ".rels")) and not name.startswith("customXml/"):
                texts.writestr(name, without_hidden(archive.read_xml(name), hidden))
    copy.seek(0)
    return copy


def _read_properties(archive: TextArchive) -> tuple[str, dict[str, Any]]:
    """Title and metadata; an empty title and no metadata if the document has no properties."""
    if "docProps/core.xml" not in archive.names:
        return "", {}
    root = parse_xml(archive, "docProps/core.xml")
    values = {name: " ".join((root.findtext(tag) or "").split()) for name, tag in _FIELDS.items()}
    if values["created"]:
        values["created"] = re.sub(r"T.*", "", values["created"])
    title = " ".join((root.findtext(f"{_DUBLIN_CORE}title") or "").split())
    return title, {name: value for name, value in values.items() if value}
