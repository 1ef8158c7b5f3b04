"""Poolings and prompts of the literature that make a vector of a causal language model's states without training."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["POOLINGS", "SLOT", "Pooling"]

SLOT = "{text}"
"""Where a prompt takes the text."""


class Pooling(NamedTuple):
    """How a text becomes a vector.

    Attributes:
        prompt_set: A set of prompts in `pooling_prompts.json`, which names their sources; vectors of several prompts
            are averaged.
        taken: The hidden states that are pooled: `last`, that of the last token of the input; `mean`, those of the
            tokens in the last occurrence of the text; `weighted`, the same weighted by position 1 to n. A
            beginning-of-sequence token is never pooled.
        sentence: Whether double quotes become single ones and the text ends in a full stop, as in the published code of
            PromptEOL and MetaEOL, whose prompts put the text between double quotes.
    """

    prompt_set: str
    taken: Literal["last", "mean", "weighted"]
    sentence: bool = False

    @property
    def prompts(self) -> list[str]:
        """The prompts, in which `SLOT` marks the place of the text."""
        prompts: list[str] = _prompt_sets()[self.prompt_set]["prompts"]
        return prompts


POOLINGS = {
    "last-token": Pooling("plain", "last"),
    "mean": Pooling("plain", "mean"),
    "weighted-mean": Pooling("plain", "weighted"),  # Muennighoff, SGPT, 2022 (arXiv 2202.08904)
    "echo": Pooling("echo", "mean"),
    "prompteol": Pooling("prompteol", "last", sentence=True),
    "metaeol": Pooling("metaeol", "last", sentence=True),
}


@cache
def _prompt_sets() -> dict[str, dict[str, Any]]:
    sets: dict[str, dict[str, Any]] = json.loads(
        (Path(__file__).parent / "pooling_prompts.json").read_text(encoding="utf-8")
    )
    return sets
