"""Probe of a language model at load: are its passes bidirectional when they should be, and its texts independent?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llm2comp.errors import BackboneError

__all__ = ["PROBE_TEXTS", "probe"]

PROBE_TEXTS = ((5, 11, 7, 13, 9, 17), (8, 6, 12, 10))
"""Token ids of two texts."""

_LAST = 14
"""Replacement for the last token of the first text."""

_Forward = Callable[[Tensor, Sequence[int], bool], Tensor]
"""(embeddings (tokens, hidden), lengths, causal) to hidden states (tokens, hidden)."""


@torch.no_grad()
def probe(
    forward: _Forward, embed: Callable[[Tensor], Tensor], expected: Sequence[Tensor], *, name: str, device: torch.device
) -> None:
    """Changes one token and checks which hidden states change.

    When the last token of a text changes, a bidirectional pass must change every state of that text, alone or beside
    another text (some classes behave differently without padding), and none of the other text; a causal pass must
    change the last state only, and its states must be those of the unmodified model.

    Args:
        forward: The pass to check.
        embed: Token ids to input embeddings.
        expected: Causal states of each of `PROBE_TEXTS` by the unmodified model, (tokens, hidden).
        name: Name of the model in errors.
        device: The model's device.

    Raises:
        BackboneError: Naming the model and its mistake.
    """
    first, second = PROBE_TEXTS
    changed = (*first[:-1], _LAST)
    last = len(first) - 1

    def states(texts: Sequence[Sequence[int]], causal: bool) -> Tensor:
        embedded = embed(torch.tensor([token for text in texts for token in text], device=device))
        hidden = forward(embedded, [len(text) for text in texts], causal)
        if hidden.shape != embedded.shape:
            raise BackboneError(
                f"{name} turns embeddings of shape {tuple(embedded.shape)} into states of shape {tuple(hidden.shape)}; "
                "they must be alike"
            )
        return hidden

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
    """Distance between the states before and after, relative to their length, (tokens,)."""
    before, after = before.float(), after.float()
    distance: Tensor = (before - after).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-30)
    return distance


def _noise(states: Tensor) -> float:
    """Largest distance due to rounding alone; a mixture's experts round differently beside other tokens."""
    return 1e-5 if _exact(states) else 2e-2


def _exact(states: Tensor) -> bool:
    """Whether matrix products keep float32's precision, which TF32 on a GPU does not."""
    return states.dtype == torch.float32 and states.device.type == "cpu"
