"""What an encoder and another language model that reads its memory tokens have to have in common."""

from typing import NamedTuple

from llm2comp.backbone.forward import AttentionLayout
from llm2comp.errors import BackboneError

__all__ = ["ReaderInterface"]


class ReaderInterface(NamedTuple):
    """The side that a language model shows to the other."""

    width: int
    """Of the hidden states."""
    vocabulary: int
    """Number of tokens."""
    longest_text: int | None
    """In tokens; None: any."""
    attention: AttentionLayout
    """How texts share a forward pass."""

    def check_reader(self, reader: "ReaderInterface") -> None:
        """Compares that of a reader with this one, of the encoder.

        Raises:
            BackboneError: If they differ.
        """
        for name, ours, theirs in zip(self._fields, self, reader, strict=True):
            if ours != theirs:
                raise BackboneError(
                    f"the reader's {name.replace('_', ' ')} is {theirs}, the encoder's {ours}: give the language model "
                    "that the encoder was trained from"
                )
