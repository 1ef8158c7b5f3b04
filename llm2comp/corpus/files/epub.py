"""Books in EPUB as Markdown: the chapters in their order, with the title and metadata of the package."""

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.archive import TextArchive, parse_xml
from llm2comp.corpus.files.content import FileContent, Note
from llm2comp.corpus.files.html import close_empty_elements, parse_html, to_text
from llm2comp.corpus.files.markdown import without_title
from llm2comp.corpus.files.page_encoding import decode_page

__all__ = ["read_epub"]

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_FIELDS = {
    "author": "creator",
    "subject": "subject",
    "description": "description",
    "language": "language",
    "publisher": "publisher",
    "published": "date",
}
_PAGES = ("application/xhtml+xml", "text/html")


def read_epub(data: bytes) -> FileContent:
    """Content of a book: all chapters of its reading order, without its table of contents.

    Raises:
        ValueError: It is damaged, protected, or expands beyond the limits, or a chapter is in no encoding that shows.
        CorpusError: selectolax is not installed.
    """
    archive = TextArchive(data, ".epub")
    package_name = _find_package(archive)
    package = parse_xml(archive, package_name)
    chapters = _find_chapters(package, package_name)
    if protected := _find_encrypted(archive).intersection(chapters):
        raise ValueError(f"protected against copying ({sorted(protected)[0]} in it is encrypted)")
    texts, notes = zip(*(_read_chapter(archive, name) for name in chapters), strict=True)
    text = "\n\n".join(filter(None, texts))
    title, *_ = [*_values(package, "title"), ""]
    fields = {name: ", ".join(values) for name, tag in _FIELDS.items() if (values := _values(package, tag))}
    return FileContent(title, without_title(title, text), fields, Markup.MARKDOWN, note=next(filter(None, notes), None))


def _find_package(archive: TextArchive) -> str:
    rootfile = next(_find_all(parse_xml(archive, _CONTAINER), "rootfile"), None)
    name = rootfile.get("full-path") if rootfile is not None else None
    if not name:
        raise ValueError(f"a damaged .epub file: {_CONTAINER} names no package")
    return name


def _find_chapters(package: ElementTree.Element, package_name: str) -> list[str]:
    """Names of the parts in reading order."""
    items = {item.get("id"): item for item in _find_all(package, "item")}
    folder = posixpath.dirname(package_name)
    names = []
    for reference in _find_all(package, "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is None:
            raise ValueError(f"a damaged .epub file: its reading order names {reference.get('idref')}, which it lacks")
        if item.get("media-type") in _PAGES and "nav" not in (item.get("properties") or "").split():
            names.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or ""))))
    if not names:
        raise ValueError("a damaged .epub file: its reading order is empty")
    return names


def _find_encrypted(archive: TextArchive) -> set[str]:
    if _ENCRYPTION not in archive.names:
        return set()
    references = _find_all(parse_xml(archive, _ENCRYPTION), "CipherReference")
    return {unquote(reference.get("URI") or "") for reference in references}


def _read_chapter(archive: TextArchive, name: str) -> tuple[str, Note | None]:
    """Markdown of a chapter, and a note if its encoding is not the one it names."""
    data = archive.read_xml(name)
    try:
        page, note = decode_page(data)
    except ValueError as error:
        raise ValueError(f"{name} in it is {error}; write the book again in UTF-8") from None
    return to_text(parse_html(close_empty_elements(page))), note


def _find_all(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of this name in any namespace."""
    return (element for element in root.iter() if isinstance(element.tag, str) and element.tag.endswith(f"}}{name}"))


def _values(package: ElementTree.Element, name: str) -> list[str]:
    return list(filter(None, (" ".join((one.text or "").split()) for one in package.iter(_DUBLIN_CORE + name))))
