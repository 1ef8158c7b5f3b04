"""Markdown of an HTML tree: headings, lists, quotations, tables and code; of all else the text alone.

Links become their text and pictures their alternative text; emphasis has no marks. Navigation, scripts, forms' controls
and what is hidden are left out. Only what would begin a heading or a code block is escaped.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

__all__ = ["to_markdown"]

_LEFT_OUT = re.compile(
    "audio|button|canvas|datalist|dialog|head|iframe|input|map|nav|noscript|object|script|select|style|svg|"
    "template|textarea|title|video"
)
_BLOCKS = re.compile(
    "address|article|aside|blockquote|body|caption|center|dd|details|dir|div|dl|dt|fieldset|figcaption|figure|footer|"
    "form|h[1-6r]|header|hgroup|html|legend|li|main|menu|ol|optgroup|option|p|search|section|summary|table|tbody|td|"
    "tfoot|th|thead|tr|ul"
)
_PERMALINKS = frozenset("#¶§🔗")  # with which pages point to their own headings
_LISTS = frozenset({"ul", "ol", "menu", "dir"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CODE = frozenset({"code", "tt", "samp"})
_BLANKS = re.compile(r"[ \t\n\r\f]+")  # HTML's: a no-break space is none
_CONTAINERS = re.compile(r"^(?:(?:>|[-+*]\s|\d{1,9}[.)]\s)\s*)+")  # marks of a list or quotation
_MARK = re.compile(r"#{1,6}(?:\s|$)|`{3}|~{3}")  # of a heading or code
_LANGUAGE = re.compile(r"(?:^|\s)(?:language-|lang-|highlight-source-|highlight-|brush:\s*)([\w+#-]+)")
_NO_CELL_TEXT = ", ".join(f"td {name}" for name in ("table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"))
_EDGE = "\0"  # at both ends of a picture's text; no page has this character
_WORDS_MEET = re.compile(  # a word and what is no punctuation on the other side
    rf"""(?<=\w){_EDGE}+(?=[^\s{_EDGE},.;:!?)\]}}"'’”»…])|(?<=[^\s{_EDGE}(\[{{"'‘“«]){_EDGE}+(?=\w)"""
)
_MOST_SPAN = 100  # columns; one cell could claim thousands
_MOST_CONTAINERS = 20  # that lines show; a small page could repeat the marks of thousands on each line
_FENCE_CHARACTERS = 3


def to_markdown(root: Any) -> str:
    """The text below a node of selectolax as Markdown, without blank lines around it."""
    return _Writer().write(root)


@dataclass(slots=True)
class _Container:
    """A list item, quotation or definition: what its lines begin with.

    Attributes:
        first: Before its first line.
        rest: Before all others.
        tight: Whether no blank line is put before it.
        used: Whether it has its first line.
    """

    first: str
    rest: str
    tight: bool = False
    used: bool = False


@dataclass(slots=True)
class _List:
    ordered: bool
    number: int
    items: int = 0


class _Writer:
    """Writes one tree, node by node: a page may be nested deeper than Python's stack."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._inline: list[str] = []
        self._containers: list[_Container] = []
        self._lists: list[_List] = []
        self._codes: list[int] = []  # where code that is open begins in the line
        self._heading = 0

    def write(self, root: Any) -> str:
        stack = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                self._leave(node.tag)
            elif node.is_text_node:
                self._inline.append(_BLANKS.sub(" ", node.text_content or ""))
            elif node is root or not _is_left_out(node):
                if self._write_whole(node):
                    continue
                self._enter(node)
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(list(node.iter(include_text=True))))
        self._flush()
        return "\n".join(self._lines)

    def _write_whole(self, node: Any) -> bool:
        """Writes a node with all below it, if it is of a kind that is not written node by node."""
        if node.tag == "br":
            self._inline.append("\n")
        elif node.tag == "img":
            text = _BLANKS.sub(" ", node.attributes.get("alt") or "")
            self._inline += [_EDGE, text, _EDGE] if text.strip() else [text]
        elif node.tag == "math":
            formula = node.attributes.get("alttext") or node.text(deep=True)
            self._inline.append(_BLANKS.sub(" ", formula))
        elif node.tag == "pre":
            self._flush()
            self._write_code(node)
        elif node.tag == "table" and (rows := _find_rows(node)):
            self._flush()
            self._write_table(node, rows)
        else:
            return False
        return True

    def _enter(self, node: Any) -> None:
        tag = node.tag
        if _BLOCKS.fullmatch(tag):
            self._flush()
        if tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        elif tag in _LISTS:
            start = node.attributes.get("start") or ""
            self._lists.append(_List(tag == "ol", int(start) if start.isdecimal() and len(start) < 10 else 1))
        elif tag == "li":
            self._open(self._next_item())
        elif tag == "blockquote":
            self._open(_Container("> ", "> "))
        elif tag == "dd":
            self._open(_Container(": ", "  ", tight=True))
        elif tag in _CODE:
            self._codes.append(len(self._inline))

    def _leave(self, tag: str) -> None:
        if tag in _CODE:
            self._close_code(self._codes.pop())
        if _BLOCKS.fullmatch(tag):
            self._flush()
        if tag in _HEADINGS:
            self._heading = 0
        elif tag in _LISTS:
            self._lists.pop()
        elif tag in ("li", "blockquote", "dd"):
            self._containers.pop()

    def _open(self, container: _Container) -> None:
        deep = len(self._containers) >= _MOST_CONTAINERS
        self._containers.append(_Container("", "", container.tight) if deep else container)

    def _next_item(self) -> _Container:
        if not self._lists:
            return _Container("- ", "  ")
        items = self._lists[-1]
        marker = f"{items.number + items.items}. " if items.ordered else "- "
        items.items += 1
        return _Container(marker, " " * len(marker), tight=items.items > 1 or len(self._lists) > 1)

    def _close_code(self, start: int) -> None:
        """Puts backticks around the part of the line that is code; a block within code has none."""
        code = "".join(self._inline[start:])
        if code.strip():
            marks = "``" if "`" in code else "`"
            self._inline[start:] = [f"{marks} {code} {marks}" if "`" in code else f"`{code}`"]

    def _flush(self) -> None:
        """Writes the line so far as a block of its own."""
        text = "".join(self._inline)
        self._inline.clear()
        self._codes = [0] * len(self._codes)
        text = _WORDS_MEET.sub(" ", text).replace(_EDGE, "")
        text = re.sub(" ?\n ?", "\n", re.sub("  +", " ", text)).strip(" \n")
        if not text:
            return
        if self._heading:
            self._emit([_heading(self._heading, text.replace("\n", " "))])
        else:
            first, *rest = text.split("\n")
            self._emit([_escape(first), *(_escape(line, below=True) for line in rest)])

    def _emit(self, lines: list[str]) -> None:
        if self._lines and not any(container.tight for container in self._containers if not container.used):
            used = takewhile(lambda container: container.used, self._containers)
            self._lines.append("".join(container.rest for container in used).rstrip())
        for line in lines:
            prefix = "".join(container.rest if container.used else container.first for container in self._containers)
            self._lines.append((prefix + line).rstrip(" ") if not line else prefix + line)
            for container in self._containers:
                container.used = True

    def _write_code(self, node: Any) -> None:
        code = "".join(_verbatim(node)).removeprefix("\n").rstrip()
        if code.strip():
            ticks = max((len(run) for run in re.findall("`+", code)), default=0)
            fence = "`" * max(_FENCE_CHARACTERS, ticks + 1)
            self._emit([fence + _language(node), *code.split("\n"), fence])

    def _write_table(self, node: Any, rows: list[list[str]]) -> None:
        for caption in node.css("caption"):
            if not _is_hidden(caption) and (text := _cell(caption)):
                self._emit([text])
        width = max(map(len, rows))
        lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows]
        self._emit([lines[0], f"|{' --- |' * width}", *lines[1:]])


def _is_left_out(node: Any) -> bool:
    if not node.is_element_node or node.tag is None or _LEFT_OUT.fullmatch(node.tag):
        return True
    if _is_hidden(node):
        return True
    is_anchor = node.tag == "a" and (node.attributes.get("href") or "").startswith("#")
    return is_anchor and node.text(deep=True).strip() in _PERMALINKS


def _is_hidden(node: Any) -> bool:
    """Whether the element is not shown; a formula that Wikipedia hides behind its picture counts as shown."""
    attributes = node.attributes
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    style = (part.lower().partition(":") for part in (attributes.get("style") or "").split(";"))
    values = {name.strip(): value.partition("!")[0].strip() for name, _, value in style}
    if values.get("display") != "none" and values.get("visibility") not in ("hidden", "collapse"):
        return False
    first = next(node.iter(), None)
    return first is None or first.tag != "math"


def _heading(level: int, text: str) -> str:
    """A heading line; a `#` at its end that stands alone belongs to the text."""
    return f"{'#' * level} " + re.sub(r"(?<=\s)(?=#+$)", r"\\", text)


def _escape(line: str, *, below: bool = False) -> str:
    """A line of a paragraph, which must begin no heading or code, nor `below` another line make that one a heading."""
    bare = _CONTAINERS.sub("", line)
    marks = set(bare)
    underlines = below and (marks == {"="} or ("-" in marks and marks <= set("-|: ")))
    return f"\\{line}" if underlines or _MARK.match(bare) else line


def _verbatim(node: Any) -> Iterator[str]:
    stack = [node]
    while stack:
        part = stack.pop()
        if part.is_text_node:
            yield part.text_content or ""
        elif part.tag == "br":
            yield "\n"
        elif part is node or (part.is_element_node and not _is_hidden(part)):
            stack.extend(reversed(list(part.iter(include_text=True))))


def _language(node: Any) -> str:
    """Language of a block of code, as classes of highlighters name it; empty if none does."""
    inner = node.css_first("code")
    nodes = [node, *([inner] if inner is not None else []), *([node.parent] if node.parent is not None else [])]
    for one in nodes:
        if match := _LANGUAGE.search(one.attributes.get("class") or ""):
            return match[1]
    words = (node.attributes.get("class") or "").split()  # "code python literal-block", of docutils
    return words[1] if words[:1] == ["code"] and words[-1] == "literal-block" and len(words) > 2 else ""


def _find_rows(table: Any) -> list[list[str]]:
    """Texts of the cells of each row; none if the table is there for the layout alone."""
    if _is_layout(table):
        return []
    rows: list[list[str]] = []
    spans: dict[int, int] = {}  # columns that a cell above reaches into: rows left
    for row in table.css("tr"):
        if _is_hidden(row) or _is_hidden(row.parent):
            continue
        cells: list[str] = []
        for cell in row.iter():
            if cell.tag in ("td", "th") and not _is_hidden(cell):
                _skip_spans(cells, spans)
                down, across = (_span(cell, name) for name in ("rowspan", "colspan"))
                if down > 1:
                    spans.update((len(cells) + column, down) for column in range(across))
                cells += [_cell(cell), *[""] * (across - 1)]
        _skip_spans(cells, spans)
        spans = {column: left - 1 for column, left in spans.items() if left > 1}
        if any(cells):
            rows.append(cells)
    return rows if max(map(len, rows), default=0) > 1 else []


def _is_layout(table: Any) -> bool:
    """Whether the table says so, or tables, headings or blocks of code stand in its cells."""
    if table.attributes.get("role") in ("presentation", "none"):
        return True
    return table.css_first(_NO_CELL_TEXT) is not None


def _skip_spans(cells: list[str], spans: dict[int, int]) -> None:
    while len(cells) in spans:
        cells.append("")


def _span(cell: Any, name: str) -> int:
    value = cell.attributes.get(name) or ""
    return min(_MOST_SPAN, max(1, int(value))) if value.isdecimal() and len(value) < 6 else 1


def _cell(cell: Any) -> str:
    """Text of a cell on one line."""
    return re.sub(r"\s*\n\s*", " ", to_markdown(cell)).replace("|", "\\|").strip()
