"""Hidden text of Word documents: runs marked as hidden, or that a style of theirs or of their paragraph hides."""

from collections.abc import Iterator
from xml.etree import ElementTree

__all__ = ["HiddenStyles", "without_hidden"]

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_KEPT = frozenset({f"{_WORD}rPr", f"{_WORD}fldChar", f"{_WORD}instrText"})  # a field begins and ends in runs
_MARK = f"{_WORD}rPr/{_WORD}vanish"
_MOST_ANCESTORS = 100  # styles may be based on each other in a circle


class HiddenStyles:
    """The styles of a document that hide text.

    Args:
        part: `word/styles.xml`; empty: the document has no styles.
    """

    def __init__(self, part: bytes) -> None:
        self._marks = dict[str, bool]()
        self._bases = dict[str, str]()
        self._default = ""  # style of paragraphs that name none
        if b":vanish" in part:
            self._read(part)

    def _read(self, part: bytes) -> None:
        root = _parse(part)
        for style in root.iter(f"{_WORD}style") if root is not None else ():
            name = style.get(f"{_WORD}styleId") or ""
            if (mark := _mark(style, _MARK)) is not None:
                self._marks[name] = mark
            self._bases[name] = _value(style, f"{_WORD}basedOn")
            if style.get(f"{_WORD}type") == "paragraph" and style.get(f"{_WORD}default") in ("1", "true", "on"):
                self._default = name

    def __bool__(self) -> bool:
        return any(self._marks.values())

    def hide(self, paragraph: str, run: str) -> bool:
        """Whether text in these styles (empty: none) is hidden: if one of the two hides it, but not both."""
        return self._hides(paragraph or self._default) != self._hides(run)

    def _hides(self, style: str) -> bool:
        """Whether a style, or else the nearest one that it is based on and says so, hides text."""
        for _ in range(_MOST_ANCESTORS):
            if style in self._marks:
                return self._marks[style]
            style = self._bases.get(style, "")
        return False


def without_hidden(part: bytes, styles: HiddenStyles) -> bytes:
    """A part without the content of hidden runs, which mammoth would show."""
    if b":vanish" not in part and not styles:
        return part
    root, changed = _parse(part), False
    if root is None:
        return part
    for run, paragraph in list(_runs(root, "")):
        mark = _mark(run, _MARK)
        if styles.hide(paragraph, _value(run, f"{_WORD}rPr/{_WORD}rStyle")) if mark is None else mark:
            changed = True
            for child in [child for child in run if child.tag not in _KEPT]:
                run.remove(child)
    return ElementTree.tostring(root) if changed else part


def _parse(part: bytes) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(part)
    except ElementTree.ParseError:
        return None  # mammoth says what is wrong


def _runs(root: ElementTree.Element, style: str) -> Iterator[tuple[ElementTree.Element, str]]:
    """Every run with the style of the paragraph around it, those in text boxes within another paragraph too."""
    pending = [(root, style)]
    while pending:
        element, style = pending.pop()
        if element.tag == f"{_WORD}p":
            style = _value(element, f"{_WORD}pPr/{_WORD}pStyle")
        elif element.tag == f"{_WORD}r":
            yield element, style
        pending.extend((child, style) for child in element)


def _mark(element: ElementTree.Element, path: str) -> bool | None:
    """Whether a property is switched on; None: nothing is said of it."""
    mark = element.find(path)
    return None if mark is None else mark.get(f"{_WORD}val") not in ("0", "false", "off")


def _value(element: ElementTree.Element, path: str) -> str:
    child = element.find(path)
    return "" if child is None else child.get(f"{_WORD}val") or ""
