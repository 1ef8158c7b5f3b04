"""Settings of fitting a whitening."""

from dataclasses import dataclass

from llm2comp.errors import SettingsError
from llm2comp.training.settings import check_fields

__all__ = ["WhiteningSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhiteningSettings:
    """Which texts the whitening of a model is fitted to, and how far it goes."""

    corpora: tuple[str, ...] = ()
    """Sources of texts that `llm2comp.corpus.read.read_corpus` understands."""
    pairs: tuple[str, ...] = ()
    """Training files or folders that `llm2comp.corpus.triples.read_triples` understands: queries and positives."""
    texts: int = 20_000
    """Number of texts, drawn at random, of each corpus and each file of pairs as many: of a corpus pieces of up to
    1,000 characters, of a longer query or positive a random part."""
    power: float = 0.75
    """How far the spreads of components are evened out: 0 not at all, 1 wholly."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        check_fields(self, least={0: ["seed"], 1: ["texts"]})
        if not (self.corpora or self.pairs):
            raise SettingsError("whitening is fitted to texts: give corpora or pairs")
        if not 0 < self.power <= 1:
            raise SettingsError(f"power is {self.power:g}; give a number above 0, at most 1")
