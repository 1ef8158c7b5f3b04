"""Shapes of Llama models, and language models of random weights in these shapes."""

from typing import Any, NamedTuple

from llm2comp.errors import SettingsError

__all__ = ["SHAPES", "Shape", "random_llama"]

_WIDE = 1024


class Shape(NamedTuple):
    """A Llama's shape, without its vocabulary."""

    hidden: int
    layers: int
    intermediate: int

    @classmethod
    def parse(cls, name: str) -> "Shape":
        """A shape by its name in `SHAPES`, or written HIDDENxLAYERSxINTERMEDIATE.

        Raises:
            SettingsError: It is neither, or no number of heads fits.
        """
        if name in SHAPES:
            return SHAPES[name]
        parts = name.split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
            raise SettingsError(
                f"shape is {name!r}; give {', '.join(SHAPES)} or HIDDENxLAYERSxINTERMEDIATE, such as 768x12x2048"
            )
        shape = cls(*map(int, parts))
        if shape.hidden % 2:
            raise SettingsError(
                f"shape is {name!r}: hidden {shape.hidden} must be even, for rotary positions turn pairs of dimensions"
            )
        return shape

    @property
    def heads(self) -> int:
        """The fewest heads of an even number of dimensions, at most 64; at most 128 from a width of 1,024 on."""
        largest = 64 if self.hidden < _WIDE else 128
        return next(
            heads
            for heads in range(1, self.hidden + 1)
            if self.hidden % (2 * heads) == 0 and self.hidden // heads <= largest
        )


SHAPES = {
    "tiny": Shape(256, 4, 768),
    "15m": Shape(288, 6, 768),
    "85m": Shape(768, 12, 2048),
    "0.6b": Shape(1024, 28, 3072),
    "1.5b": Shape(1536, 28, 8960),
    "7b": Shape(4096, 32, 11_008),
}
"""Shapes by name: `tiny` is the bundled model's; `15m` and `85m` have about as many parameters beside the embeddings;
the others are those of Qwen3-0.6B, Qwen2.5-1.5B (every head with keys of its own) and Llama-2-7B."""


def random_llama(shape: Shape, vocabulary: int, seed: int, **config: Any) -> Any:
    """A `LlamaForCausalLM` of random float32 weights with tied embeddings, the same for the same seed.

    Args:
        shape: Its shape.
        vocabulary: Rows of its embeddings.
        seed: Of the weights.
        **config: Further arguments of `transformers.LlamaConfig`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate,
            tie_word_embeddings=True,
            **config,
        )
    )
