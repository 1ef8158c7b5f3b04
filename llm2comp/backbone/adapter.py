"""Settings of a LoRA adapter; imports no torch, so that recipes are checked before anything heavy is imported."""

from dataclasses import dataclass

from llm2comp.errors import SettingsError

__all__ = ["PAPER_ADAPTER", "AdapterSettings"]


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """A LoRA adapter; the defaults are the paper's."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] | None = None
    """Names of the layers to adapt; None: q, v, o, gate, up and down if the model has them, else all linear layers."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise SettingsError(
                f"an adapter of rank {self.rank} and dropout {self.dropout}: give a rank of at least 1 and a dropout "
                "in [0, 1)"
            )


PAPER_ADAPTER = AdapterSettings()
"""Rank 16, alpha 32, dropout 0.05."""
