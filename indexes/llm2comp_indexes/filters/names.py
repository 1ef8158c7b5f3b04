"""Field names in filters, as the source writes them: Python's parser normalises names (NFKC) and has none in backticks.

The parser reads a text in which spaces and underscores stand for each name in backticks, as many as it has characters.
So every name is found again, by its place, in the text that was given.
"""

import ast
import keyword
import re
import unicodedata
from itertools import accumulate

from llm2comp.errors import SettingsError

__all__ = ["QUOTED", "parse_expression", "quote_name", "unquote_name"]

QUOTED = r"`(?:[^`]|``)+`"
"""Pattern of a name in backticks; a backtick within it is doubled."""
_STRING = "|".join((r"'''(?:[^\\]|\\.)*?'''", r'"""(?:[^\\]|\\.)*?"""', r"'(?:[^'\\]|\\.)*'", r'"(?:[^"\\]|\\.)*"'))
_LITERAL = re.compile(rf"{_STRING}|#[^\r\n]*|(?P<name>{QUOTED})", re.DOTALL)
_LAST_NAME = re.compile(r"[^\s.]+\Z")
_LINE_END = re.compile(rb"\r\n|\r|\n")


def parse_expression(text: str) -> ast.expr:
    """The expression, in which each name (`id`, `attr`) is as the text writes it, backticks included.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: As `ast.parse`.
        SettingsError: A backtick ends no name.
    """
    source = _LITERAL.sub(lambda match: _placeholder(match[0]) if match["name"] else match[0], text)
    if "`" in _LITERAL.sub("", source):
        raise SettingsError("a ` without another; a name in backticks is `like this`, and a ` within it is written ``")
    start = len(source) - len(source.lstrip())
    tree = ast.parse(source.strip(), mode="eval")
    if source == text and text.isascii():
        return tree.body
    places = _Places(source.strip())
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            first = places.character(node.lineno, node.col_offset)
            node.id = _written(text, start + first, start + places.end(node))
        elif isinstance(node, ast.Attribute):
            first, last = places.end(node.value), places.end(node)
            match = _LAST_NAME.search(source, start + first, start + last)
            node.attr = _written(text, match.start() if match else start + first, start + last)
    return tree.body


def _placeholder(name: str) -> str:
    return f" {'_' * (len(name) - 2)} "


def _written(text: str, first: int, last: int) -> str:
    """The name within these places, with the backticks around it."""
    quoted = first > 0 and text[first - 1] == "`"
    return text[first - 1 : last + 1] if quoted else text[first:last]


class _Places:
    """Places of characters in a text, by the lines and bytes in which the parser counts."""

    def __init__(self, source: str) -> None:
        encoded = source.encode()
        self._lines = [0, *(match.end() for match in _LINE_END.finditer(encoded))]
        # Of each byte, the number of characters that begin before it: bytes 10xxxxxx begin none
        self._characters = list(accumulate((byte & 0xC0 != 0x80 for byte in encoded), initial=0))

    def character(self, line: int, byte: int) -> int:
        """Place of the character at a byte of a line, which is counted from 1."""
        return self._characters[self._lines[line - 1] + byte]

    def end(self, node: ast.expr) -> int:
        """Place of the first character behind the expression."""
        return self.character(node.end_lineno or node.lineno, node.end_col_offset or 0)


def unquote_name(name: str) -> str:
    """The name without the backticks around it, if there are any."""
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def quote_name(name: str) -> str:
    """The name as filters write it: in backticks unless it is a name, or several joined by dots, in Python too."""
    parts = name.split(".")
    plain = all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    if name and plain and unicodedata.normalize("NFKC", name) == name:
        return name
    return "`" + name.replace("`", "``") + "`" if name else 'field[""]'
