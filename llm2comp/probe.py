"""A test every language model takes before it becomes a backbone: does it read both ways, and each text by itself?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llm2comp.errors import BackboneError

__all__ = ["probe"]

_Forward = Callable[[Tensor, Sequence[int], bool], Tensor]
"""(embeddings (tokens, hidden), lengths, causal) to hidden states (tokens, hidden)."""


@torch.no_grad()
def probe(forward: _Forward, embed: Callable[[Tensor], Tensor], *, name: str, device: torch.device) -> None:
    """Changes one token and looks at which hidden states move.

    Two texts share a forward pass. When the last token of the first changes, a bidirectional pass must move every state
    of that text and none of the other; a causal pass must move the last state only.

    Raises:
        BackboneError: Naming the model and what it did instead.
    """
    texts = torch.tensor([5, 11, 7, 13, 9, 17, 8, 6, 12, 10], device=device)
    lengths = (6, 4)
    changed = texts.clone()
    changed[lengths[0] - 1] = 14
    moved_both_ways = _moved(forward, embed, texts, changed, lengths, causal=False)
    if not moved_both_ways[: lengths[0]].all():
        raise BackboneError(f"{name} stays causal: changing a text's last token moves only {int(moved_both_ways.sum())} of its {lengths[0]} states")
    if moved_both_ways[lengths[0] :].any():
        raise BackboneError(f"{name} lets texts that share a batch leak into one another")
    if _moved(forward, embed, texts, changed, lengths, causal=True)[: lengths[0] - 1].any():
        raise BackboneError(f"{name} looks ahead when it should be causal")
    if not _moved(forward, embed, changed, texts, lengths, causal=True)[lengths[0] - 1]:
        raise BackboneError(f"{name} does not react to its input")


def _moved(forward: _Forward, embed: Callable[[Tensor], Tensor], texts: Tensor, changed: Tensor, lengths: Sequence[int], *, causal: bool) -> Tensor:
    """Which states differ between two batches, (tokens,); a millionth of the largest state counts as a move."""
    before, after = (forward(embed(tokens), lengths, causal).float() for tokens in (texts, changed))
    return (before - after).abs().amax(-1) > 1e-6 * before.abs().max()
