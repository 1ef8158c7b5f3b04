"""A test every language model takes before it becomes a backbone: does it read both ways, and each text by itself?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llm2comp.errors import BackboneError

__all__ = ["PROBE_TEXTS", "probe"]

PROBE_TEXTS = ((5, 11, 7, 13, 9, 17), (8, 6, 12, 10))
"""Token ids of two texts."""

_LAST = 14
"""What the last token of the first text is changed to."""

_Forward = Callable[[Tensor, Sequence[int], bool], Tensor]
"""(embeddings (tokens, hidden), lengths, causal) to hidden states (tokens, hidden)."""


@torch.no_grad()
def probe(
    forward: _Forward, embed: Callable[[Tensor], Tensor], expected: Sequence[Tensor], *, name: str, device: torch.device
) -> None:
    """Changes one token and looks at which hidden states move.

    When the last token of a text changes, a bidirectional pass must move every state of that text, alone or with
    another text beside it (some classes behave differently without padding), and none of the other; a causal pass must
    move the last state only, and must give the states that the model gives by itself.

    Args:
        forward: The pass on trial.
        embed: Token ids to input embeddings.
        expected: The model's own causal states of each of `PROBE_TEXTS`, (tokens, hidden).
        name: What to call the model.
        device: Where it is.

    Raises:
        BackboneError: Naming the model and what it did instead.
    """
    first, second = PROBE_TEXTS
    changed = (*first[:-1], _LAST)
    last = len(first) - 1

    def states(texts: Sequence[Sequence[int]], causal: bool) -> Tensor:
        embedded = embed(torch.tensor([token for text in texts for token in text], device=device))
        found = forward(embedded, [len(text) for text in texts], causal)
        if found.shape != embedded.shape:
            raise BackboneError(
                f"{name} turns embeddings of shape {tuple(embedded.shape)} into states of shape {tuple(found.shape)}; "
                "they must be alike"
            )
        return found

    for beside in ((), (second,)):
        before, after = states((first, *beside), False), states((changed, *beside), False)
        moved = _distance(before, after) > (1e-6 if _exact(before) else 0.0)
        if not moved[: last + 1].all():
            raise BackboneError(
                f"{name} stays causal: changing a text's last token moves only {int(moved[: last + 1].sum())} of its "
                f"{last + 1} states"
            )
        if (_distance(before, after) > _noise(before))[last + 1 :].any():
            raise BackboneError(f"{name} lets texts that share a batch leak into one another")
    before, after = states((first, second), True), states((changed, second), True)
    moved = _distance(before, after) > _noise(before)
    if moved[:last].any():
        raise BackboneError(f"{name} looks ahead when it should be causal")
    if not moved[last]:
        raise BackboneError(f"{name} does not react to its input")
    error = float(_distance(torch.cat(list(expected)), before).median())
    if not error <= 5 * _noise(before):
        raise BackboneError(f"{name} reads differently than by itself, its causal states are off by {error:.1%}")


def _distance(before: Tensor, after: Tensor) -> Tensor:
    """How far each state went, relative to its length, (tokens,)."""
    before, after = before.float(), after.float()
    distance: Tensor = (before - after).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-30)
    return distance


def _noise(states: Tensor) -> float:
    """Distance that rounding alone can bring about: a mixture's experts round differently when they are given other tokens."""
    return 1e-5 if _exact(states) else 2e-2


def _exact(states: Tensor) -> bool:
    """Whether matrix products keep float32's precision, which TF32 on a GPU does not."""
    return states.dtype == torch.float32 and states.device.type == "cpu"
