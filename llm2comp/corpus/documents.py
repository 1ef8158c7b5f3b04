"""`Document`, the unit of every corpus, index and benchmark: id, title, text and metadata."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Document"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: Unique within its corpus; any string.
        title: May be empty.
        text: The body; may be empty.
        metadata: JSON values by name, kept beside the document in an index.
    """

    id: str
    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """The text that is encoded: title, line break and text; one of the two alone if the other is empty."""
        return f"{self.title}\n{self.text}" if self.title and self.text else self.title or self.text
