"""HTML pages as Markdown, with their title and the metadata of their head."""

import re
from typing import Any

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.content import FileContent
from llm2comp.corpus.files.markdown import without_title
from llm2comp.corpus.files.markdown_writer import to_markdown
from llm2comp.corpus.files.page_encoding import decode_page
from llm2comp.errors import CorpusError
from llm2comp.optional import optional_import

__all__ = ["close_empty_elements", "parse_html", "read_html", "to_text"]

_METADATA = ("author", "description", "keywords")
_EMPTY_ELEMENT = re.compile(r"""<([A-Za-z][\w:.-]*)((?:[^<>"'/]|"[^"]*"|'[^']*'|/(?!>))*+)/>""")
_VOID = re.compile("area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr")


def read_html(data: bytes) -> FileContent:
    """Content of a page: of its `main` element if it has one, or else of its body.

    The title is that of the head, or else the first `h1`.

    Raises:
        ValueError: Its bytes are not in the encoding that it names, and not in another that shows.
        CorpusError: selectolax is not installed.
    """
    try:
        page, note = decode_page(data)
    except ValueError as error:
        raise ValueError(f"{error}; convert the file with iconv, or name its encoding (--encoding NAME)") from None
    tree = parse_html(close_empty_elements(page) if page.lstrip().startswith("<?xml") else page)
    title = _line(tree.css_first("title")) or _line(tree.css_first("h1"))
    fields = {}
    for name in _METADATA:
        if value := _attribute(tree.css_first(f'meta[name="{name}" i]'), "content"):
            fields[name] = value
    if language := _attribute(tree.css_first("html"), "lang"):
        fields["language"] = language
    note = note and note._replace(hint="--encoding NAME chooses another")
    return FileContent(title, without_title(title, to_text(tree)), fields, Markup.MARKDOWN, note=note)


def parse_html(page: str) -> Any:
    """The tree of a page.

    Raises:
        CorpusError: selectolax is not installed.
    """
    parser = optional_import("selectolax.lexbor", extra="files", needed_by="HTML", error_type=CorpusError)
    return parser.LexborHTMLParser(page)


def to_text(tree: Any) -> str:
    """Markdown of the one `main` element, or else of the body."""
    main = tree.css("main, [role=main]")
    root = main[0] if len(main) == 1 else tree.body
    return to_markdown(root) if root is not None else ""


def close_empty_elements(page: str) -> str:
    """XHTML with end tags for elements such as `<title/>`, which HTML takes for the beginning of one."""

    def close(match: re.Match[str]) -> str:
        return match[0] if _VOID.fullmatch(match[1]) else f"<{match[1]}{match[2]}></{match[1]}>"

    return _EMPTY_ELEMENT.sub(close, page)


def _line(node: Any) -> str:
    return " ".join(node.text(deep=True).split()) if node is not None else ""


def _attribute(node: Any, name: str) -> str:
    return " ".join((node.attributes.get(name) or "").split()) if node is not None else ""
