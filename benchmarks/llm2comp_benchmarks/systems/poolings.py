"""The poolings and prompts that make a vector of a causal language model's states without training, as the literature has them."""

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
        prompt_set: Which prompts of `pooling_prompts.json`, where their sources stand; the vectors of several prompts
            are averaged.
        taken: Which hidden states: the `last` token's of the whole input; the `mean` of the tokens of the text's last
            occurrence; or their mean with `weighted` positions 1 to n. A beginning-of-sequence token is seen, not
            averaged.
        sentence: Double quotes become single ones and the text ends in a full stop, as in the published code of
            PromptEOL and MetaEOL, whose prompts put it between double quotes.
    """

    prompt_set: str
    taken: Literal["last", "mean", "weighted"]
    sentence: bool = False

    @property
    def prompts(self) -> list[str]:
        """The prompts, each with the text's place marked `SLOT`."""
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
