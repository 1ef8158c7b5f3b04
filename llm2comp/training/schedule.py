"""The learning rate of the published runs: a logarithmic warm-up, then a linear decay to a floor."""

import math

__all__ = ["learning_rate"]


def learning_rate(update: int, *, total: int, warmup: int, peak: float, floor: float) -> float:
    """Learning rate of one optimizer update.

    Args:
        update: Number of the update, from 1.
        total: Updates of the run.
        warmup: Updates until the peak; 0 or 1 starts at the peak.
        peak: Highest learning rate.
        floor: Learning rate of the first two updates and of the end.

    Source: DeepSpeed's WarmupDecayLR as the published LLM2Comp runs set it.
    """
    position = update - 2
    if warmup > 1 and position < warmup:
        share = 0.0 if position < 0 else math.log(position + 1) / math.log(warmup)
    else:
        share = max(0.0, (total - position) / (total - warmup)) if position >= warmup else 1.0
    return floor + (peak - floor) * min(share, 1.0)
