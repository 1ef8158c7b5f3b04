"""`Document`, the unit of every corpus, index and benchmark: id, title, text and metadata."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Document", "Markup"]


class Markup(StrEnum):
    """How a text shows its structure, for cutting it into chunks."""

    PLAIN = "plain"
    MARKDOWN = "markdown"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: Unique within its corpus; any string.
        title: May be empty.
        text: The body; may be empty.
        metadata: JSON values by name, kept beside the document in an index.
        markup: How the text shows its structure; not kept in an index.
        pages: Offsets in characters at which the pages of the text begin; empty: it has none. Not kept in an index.
    """

    id: str
    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    markup: Markup = Markup.PLAIN
    pages: tuple[int, ...] = ()

    @property
    def content(self) -> str:
        """The text that is encoded: title, line break and text; one of the two alone if the other is empty."""
        return f"{self.title}\n{self.text}" if self.title and self.text else self.title or self.text
