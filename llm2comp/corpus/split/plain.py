"""Blocks of a plain text: paragraphs, which blank lines end."""

import re

from llm2comp.corpus.split.units import Kind, Unit, cut_at

__all__ = ["plain_units"]

_BLANK_LINES = re.compile(r"(?:\r\n|\n|\r)(?:[ \t]*(?:\r\n|\n|\r))+")


def plain_units(text: str) -> list[Unit]:
    """The paragraphs of the text, which make it up without gaps."""
    if not text:
        return []
    whole = Unit(Kind.BLOCKS, 0, len(text))
    return list(cut_at((match.end() for match in _BLANK_LINES.finditer(text)), whole, Kind.PARAGRAPH))
