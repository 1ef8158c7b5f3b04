"""Books in EPUB as Markdown: the chapters in their order, with the title and metadata of the package."""

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.archive import TextArchive, parse_xml
from llm2comp.corpus.files.content import FileContent, decode_utf8
from llm2comp.corpus.files.html import close_empty_elements, parse_html, to_text
from llm2comp.corpus.files.markdown import without_title

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
        ValueError: It is damaged, protected, or expands beyond the limits.
        CorpusError: selectolax is not installed.
    """
    archive = TextArchive(data, ".epub")
    package_name = _find_package(archive)
    package = parse_xml(archive, package_name)
    chapters = _find_chapters(package, package_name)
    if protected := _find_encrypted(archive).intersection(chapters):
        raise ValueError(f"protected against copying ({sorted(protected)[0]} in it is encrypted)")
    text = "\n\n".join(filter(None, (_read_chapter(archive, name) for name in chapters)))
    title, *_ = [*_values(package, "title"), ""]
    fields = {name: ", ".join(values) for name, tag in _FIELDS.items() if (values := _values(package, tag))}
    return FileContent(title, without_title(title, text), fields, Markup.MARKDOWN)


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


def _read_chapter(archive: TextArchive, name: str) -> str:
    page = archive.read_xml(name)
    try:
        text = decode_utf8(page)
    except UnicodeDecodeError:
        text = page.decode("utf-16" if page[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252", "replace")
    return to_text(parse_html(close_empty_elements(text)))


def _find_all(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of this name in any namespace."""
    return (element for element in root.iter() if isinstance(element.tag, str) and element.tag.endswith(f"}}{name}"))


def _values(package: ElementTree.Element, name: str) -> list[str]:
    return list(filter(None, (" ".join((one.text or "").split()) for one in package.iter(_DUBLIN_CORE + name))))
