"""Markdown files: title from the front matter or the first heading, metadata from the front matter."""

import re
from datetime import date
from functools import cache
from typing import Any

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.content import FileContent, Note, decode_utf8
from llm2comp.corpus.files.front_matter import is_unfinished, split_front_matter

__all__ = ["read_markdown", "without_title"]

_UNFINISHED = Note("with front matter that has no second line of --- or +++, read as text")
_HEADING = re.compile(r"^ {0,3}(?:#{1,6}(?:[ \t].*)?|=+|-+)[ \t]*$", re.MULTILINE)  # or a line below one
_HEAD_CHARACTERS = 2**16  # the first heading is looked for in these
_FIRST_HEADING = re.compile(r"\s*?#{1,6}[ \t]+(?P<heading>.*?)(?:[ \t]+#+)?[ \t]*(?:\n\s*?\n|\n|\Z)")


def read_markdown(data: bytes) -> FileContent:
    """Content of a Markdown file; the heading that is its title is no part of the text if it comes first and not alone.

    Raises:
        ValueError: It is not UTF-8, or its front matter is malformed.
    """
    source = decode_utf8(data)
    fields, text = split_front_matter(source)
    heading, first, last = _find_heading(text)
    title = _take_title(fields) or heading
    if heading and heading == title and not text[:first].strip():
        text = text[last:].lstrip("\n") or text
    return FileContent(title, text, fields, Markup.MARKDOWN, note=_UNFINISHED if is_unfinished(source) else None)


def without_title(title: str, text: str) -> str:
    """Markdown without its first line if that is a heading of this title, unless nothing is left."""
    match = _FIRST_HEADING.match(text)
    return text[match.end() :].lstrip("\n") or text if match and title and match["heading"] == title else text


def _take_title(fields: dict[str, Any]) -> str:
    """The title, which is taken out of the fields; empty if there is none.

    Raises:
        ValueError: It is a list or a mapping.
    """
    name = next((name for name in fields if name.strip().lower() == "title"), None)
    if name is None:
        return ""
    title = fields.pop(name)
    if title is not None and not isinstance(title, str | int | float | date):
        raise ValueError(f"the title in the front matter is a {type(title).__name__}, expected a text")
    return "" if title is None else str(title).strip()


def _find_heading(text: str) -> tuple[str, int, int]:
    """The first heading as plain text, and where it begins and ends in the text; an empty one if there is none."""
    candidate = _HEADING.search(text, 0, _HEAD_CHARACTERS)
    if candidate is None:
        return "", 0, 0
    parser = _parser()
    for end in (candidate.end(), _HEAD_CHARACTERS):  # mostly the candidate is the heading, which saves the rest
        tokens = parser.parse(text[:end])
        for opening, inline in zip(tokens, tokens[1:], strict=False):
            if opening.type == "heading_open" and not opening.level and opening.map:
                starts = [0, *(match.end() for match in re.finditer("\n", text[:end])), end]
                first, last = (starts[line] for line in opening.map)
                return _plain(inline.content), first, last
    return "", 0, 0


@cache
def _parser() -> Any:
    """A parser of blocks alone."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").disable("inline")


def _plain(markdown: str) -> str:
    """The text of a heading without its marks: `A *b* [c](d)` is `A b c`."""
    from markdown_it import MarkdownIt

    [line] = MarkdownIt("commonmark").parseInline(markdown)
    parts = (" " if child.type.endswith("break") else child.content for child in line.children or ())
    return " ".join("".join(parts).split())
