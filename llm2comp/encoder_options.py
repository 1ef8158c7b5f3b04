"""Options of a model that encodes: those that change its vectors, which indexes keep, and where and how it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from llm2comp.checked_json import check_known, take, take_count
from llm2comp.errors import SettingsError

__all__ = ["DTYPES", "ENGINES", "EncoderOptions"]

DTYPES = ("auto", "float32", "bfloat16")
ENGINES = ("auto", "torch", "openvino")
_RUNTIME = ("device", "batch_size")
_ROUNDING = ("dtype", "engine")
_MOST = 1 << 24


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Options of a model that encodes. None leaves an option as the model, or the index that it is for, has it.

    `dtype`, `max_length`, `truncate_dim` and `engine` change vectors: an index keeps them and applies them to queries.

    Attributes:
        dtype: Precision of the weights: `float32`, `bfloat16`, or `auto`, which each machine chooses for itself:
            bfloat16 where the hardware multiplies it natively, else float32.
        max_length: Maximum length of a text in tokens, memory tokens included.
        truncate_dim: Number of components that a vector keeps, its first; vectors have unit length again.
        engine: What computes vectors: `torch`, `openvino`, or `auto`, which is `torch`.
        device: Where the model runs: `cpu`, `cuda`, `cuda:1` …
        batch_size: Number of texts in a batch.

    Raises:
        SettingsError: There is no such dtype or engine, or a number is below 1.
    """

    dtype: str | None = None
    max_length: int | None = None
    truncate_dim: int | None = None
    engine: str | None = None
    device: str | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("engine", ENGINES)):
            if (value := getattr(self, name)) is not None and value not in known:
                raise SettingsError(f"{name} is {value!r}; give {', '.join(known[:-1])} or {known[-1]}")
        for name in ("max_length", "truncate_dim", "batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise SettingsError(f"{name} is {value!r}, expected a whole number of at least 1")

    @property
    def recorded(self) -> "EncoderOptions":
        """The options that change vectors, where they are not those of `llm2comp.load`."""
        return EncoderOptions(
            None if self.dtype == "auto" else self.dtype,
            self.max_length,
            self.truncate_dim,
            None if self.engine in ("auto", "torch") else self.engine,
        )

    def within(self, recorded: "EncoderOptions", where: str, *, for_queries: bool = False) -> "EncoderOptions":
        """The recorded options with the device and batch size of these.

        Args:
            recorded: The `recorded` options of an index or of shards.
            where: What they are recorded in, for the message.
            for_queries: Take another dtype or engine too: queries encoded so differ in rounding only.

        Raises:
            SettingsError: An option that changes vectors is given, and is another one than recorded.
        """
        chosen = {name: value for name in _ROUNDING if for_queries and (value := getattr(self, name)) is not None}
        for name in _CHANGING:
            value = None if name in chosen else getattr(self, name)
            if value is not None and getattr(self.recorded, name) != (kept := getattr(recorded, name)):
                raise SettingsError(
                    f"{name} is {value}, and {where} was encoded with {_DEFAULTS[name] if kept is None else kept}: "
                    "vectors of both do not fit together; leave it out, or build another index"
                )
        return replace(recorded, device=self.device, batch_size=self.batch_size, **chosen)

    def describe(self) -> str:
        """The options that change vectors as text: dtype float32, max_length 128; empty if all are the defaults."""
        return ", ".join(f"{name} {value}" for name, value in self.to_json().items())

    def to_json(self) -> dict[str, Any]:
        """JSON values of the recorded options, without those that are the defaults."""
        recorded = self.recorded
        return {name: value for name in _CHANGING if (value := getattr(recorded, name)) is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "EncoderOptions":
        """The options that `to_json` gave.

        Raises:
            ValueError: A field is unknown, of another type, or out of its range.
        """
        check_known(content, _CHANGING, "its encoder")
        values: dict[str, Any] = {name: take(content, name, str) for name in _ROUNDING if name in content}
        for name in ("max_length", "truncate_dim"):
            if name in content:
                values[name] = take_count(content, name, 1, _MOST)
        try:
            return cls(**values)
        except SettingsError as error:
            raise ValueError(str(error)) from None


_CHANGING = tuple(field.name for field in fields(EncoderOptions) if field.name not in _RUNTIME)
_DEFAULTS = {
    "dtype": "auto",
    "max_length": "the model's own",
    "truncate_dim": "whole vectors",
    "engine": "torch",
}
