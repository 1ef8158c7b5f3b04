"""Whether a run diverges: its loss is far above what it was at the beginning."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

__all__ = ["divergence"]

_UPDATES = 10
"""Updates that a loss is averaged over."""
_TIMES, _NATS = 2.0, 1.0


def divergence(entries: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the losses of a run; empty if they are not far above those at the beginning.

    Far above: the mean of the last ten updates is twice that of the first ten, and more than one nat above it.

    Args:
        entries: Entries of `metrics.jsonl` in order; those without a loss are ignored.
    """
    losses = [(entry["step"], entry["loss"]) for entry in entries if isinstance(entry.get("loss"), (int, float))]
    if not losses:
        return ""
    first, last = max(_UPDATES, losses[0][0]), losses[-1][0]
    recent = [loss for step, loss in losses if step > max(first, last - _UPDATES)]
    if last < first + _UPDATES or not recent:
        return ""
    start, now = fmean(loss for step, loss in losses if step <= first), fmean(recent)
    if now <= max(_TIMES * start, start + _NATS):
        return ""
    return f"the run diverges: its loss is {now:.4g} at step {last} and was {start:.4g} at the beginning"
