"""The fidelities of many texts in a few numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm2comp.analysis.fidelity import Fidelity
from llm2comp.analysis.reading import Share, pooled_share

__all__ = ["FidelitySummary", "summarize"]


@dataclass(frozen=True)
class FidelitySummary:
    """The fidelities of many texts.

    Attributes:
        texts: Number of texts.
        unhelped: Number of texts that do not help the reader, and so have no share of their own.
        cut: Number of texts of which only the beginning was read.
        tokens: Mean number of tokens in a memory.
        nothing: Mean loss after nothing, in nats per token, each text counting the same.
        memory: Mean loss after a memory.
        text: Mean loss after the text.
        share: Share of the mean worth of the texts that their memories keep, with its 95 % bootstrap interval, over all
            texts; None if the texts do not help the reader.
        quartiles: First quartile, median and third quartile of the shares of single texts; None: none has one.
    """

    texts: int
    unhelped: int
    cut: int
    tokens: float
    nothing: float
    memory: float
    text: float
    share: Share | None
    quartiles: tuple[float, float, float] | None


def summarize(fidelities: Sequence[Fidelity]) -> FidelitySummary:
    """The summary of at least one text."""
    nothing, memory, text = np.array([[one.nothing, one.memory, one.text] for one in fidelities]).T
    shares = [one.share for one in fidelities if one.share is not None]
    first, median, third = np.percentile(shares, [25, 50, 75]).tolist() if shares else (0.0, 0.0, 0.0)
    return FidelitySummary(
        texts=len(fidelities),
        unhelped=len(fidelities) - len(shares),
        cut=sum(one.cut for one in fidelities),
        tokens=sum(one.tokens for one in fidelities) / len(fidelities),
        nothing=float(nothing.mean()),
        memory=float(memory.mean()),
        text=float(text.mean()),
        share=pooled_share(nothing - memory, nothing - text),
        quartiles=(first, median, third) if shares else None,
    )
