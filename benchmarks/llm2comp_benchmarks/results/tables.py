"""Tables in Markdown and for terminals, and the blocks of a file that hold them."""

import re
from collections.abc import Callable, Sequence

__all__ = ["aligned_table", "fill_blocks", "markdown_table"]

_BLOCK = re.compile(r"<!-- table (.+?) -->\n.*?<!-- end -->", re.DOTALL)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a Markdown table; the first is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def fill_blocks(text: str, make: Callable[[str], str]) -> str:
    """The text with what is between `<!-- table NAME -->` and `<!-- end -->` replaced by `make(NAME)`.

    NAME may have spaces.
    """
    return _BLOCK.sub(lambda match: f"<!-- table {match[1]} -->\n{make(match[1])}\n<!-- end -->", text)


def aligned_table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """The rows as text for a terminal: columns two spaces apart, aligned to the right, those of `left` to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))
