"""Tables in Markdown, and the blocks of a file that they fill."""

import re
from collections.abc import Callable, Sequence

__all__ = ["fill_blocks", "markdown_table"]

_BLOCK = re.compile(r"<!-- table (.+?) -->\n.*?<!-- end -->", re.DOTALL)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows, the first of them the header, as a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def fill_blocks(text: str, make: Callable[[str], str]) -> str:
    """The text with everything between `<!-- table NAME -->` and `<!-- end -->` made anew by `make(NAME)`; NAME may hold spaces."""
    return _BLOCK.sub(lambda found: f"<!-- table {found[1]} -->\n{make(found[1])}\n<!-- end -->", text)
