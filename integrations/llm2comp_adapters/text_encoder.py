"""The settings and the encoding that the LlamaIndex and the LangChain embedding class have in common."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, cast

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    computed_field,
    model_validator,
)

import llm2comp
from llm2comp import LLM2Comp
from llm2comp.encoder import MemoryEncoder

__all__ = ["BUNDLED", "LOADED", "TextEncoder", "check_query", "check_texts"]

BUNDLED = "llm2comp-tiny"
"""The `model_name` of the model that comes with the package; a folder of that name is `./llm2comp-tiny`."""

LOADED = "a loaded model"
"""The `model_name` where `model` is given."""


def _name(value: Any) -> Any:
    return BUNDLED if value is None else str(value) if isinstance(value, Path) else value


def _loaded(value: Any) -> Any:
    if isinstance(value, str | Path):
        raise ValueError(
            f"it takes a model already loaded (llm2comp.load); give the folder or Hub id {str(value)!r} as model_name"
        )
    return value


class TextEncoder(BaseModel):
    """Settings of an encoder, which is loaded when the object is made; mixed into each framework's class of embeddings.

    Without arguments it is the bundled model, as it was saved. Any number of threads may use one object. Dumped, it
    says how to make it again, with the model's fingerprint, which is compared when it is made again; pickled, likewise,
    so that weights travel only where they were given as `model`.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), validate_assignment=True
    )

    model_name: Annotated[str, BeforeValidator(_name)] = Field(
        default=BUNDLED, frozen=True, description="Folder or Hub id; left out: the bundled model."
    )
    model: Annotated[LLM2Comp, BeforeValidator(_loaded)] = Field(  # None only until it is loaded
        default=cast("LLM2Comp", None),
        exclude=True,
        repr=False,
        frozen=True,
        description="A model already loaded, in place of model_name and device.",
    )
    device: str | None = Field(
        default=None, frozen=True, description="cpu, cuda, cuda:1 …; None takes a GPU if there is one."
    )
    embed_batch_size: int = Field(default=64, gt=0, le=2048, description="Texts that are tokenised together.")
    query_instruction: str | None = Field(
        default=None, description="Put before queries as it stands; None: the saved model's, an empty text: none."
    )
    text_instruction: str | None = Field(
        default=None, description="Put before texts as it stands; None: the saved model's, which is none."
    )
    max_length: int | None = Field(
        default=None,
        frozen=True,
        description="Longest input in tokens, memory tokens included; longer ones keep their beginning.",
    )
    truncate_dim: int | None = Field(
        default=None, gt=0, frozen=True, description="Components kept of each vector, which has unit length again."
    )
    normalize: bool | None = Field(
        default=None, frozen=True, description="Whether vectors have unit length; None: as the model was saved."
    )
    show_progress: bool = Field(default=False, description="Show a progress bar when many texts are embedded.")

    _encoder: LLM2Comp = PrivateAttr()

    @model_validator(mode="wrap")
    @classmethod
    def _load(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Loads the model once the settings are known to be valid.

        Raises:
            ModelFolderError, BackboneError: As `llm2comp.load`.
            ValidationError: Settings that contradict each other or the model, or another model than `fingerprint` says.
        """
        if not isinstance(data, dict):
            return handler(data)  # an object of this class, validated again
        settings = {
            name: value
            for name, value in data.items()
            if name != "fingerprint" and not (name == "model" and value is None)
        }
        made = handler(settings)
        made._take_model(given="model" in settings)
        expected = data.get("fingerprint")
        if expected is not None and expected != made.fingerprint:
            raise ValueError(
                f"the model {made.model_name!r} with these settings has the fingerprint {made.fingerprint[:12]}, "
                f"expected {str(expected)[:12]}: "
                "it is another one, or was trained since; name the right model, or leave the fingerprint out"
            )
        return made

    def _take_model(self, *, given: bool) -> None:
        if given and (self.device is not None or (self.model_name != LOADED and "model_name" in self.model_fields_set)):
            raise ValueError(
                "model is given together with model_name or device, which are for loading one: give either"
            )
        if not given and self.model_name == LOADED:
            raise ValueError(
                "these settings are of an object made from a loaded model: give that model again (model=…), or its "
                "folder (model_name=…)"
            )
        model = (
            self.model
            if given
            else llm2comp.load(None if self.model_name == BUNDLED else self.model_name, device=self.device)
        )
        # Both fields are frozen to users: what is loaded is settled here, once
        self.__dict__.update(model=model, model_name=LOADED if given else self.model_name)
        self._encoder = _adapt(model, max_length=self.max_length, normalize=self.normalize)
        dimension = model.get_embedding_dimension()
        if self.truncate_dim is not None and dimension is not None and self.truncate_dim > dimension:
            raise ValueError(f"truncate_dim is {self.truncate_dim}, the model's vectors have {dimension} components")

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def fingerprint(self) -> str:
        """A text that changes whenever the vectors do: the name for a cache of them. Without settings of one's own, the model's."""
        names = ("query_instruction", "text_instruction", "max_length", "truncate_dim", "normalize")
        settings = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        own = f"{self.model.fingerprint} {json.dumps(settings, sort_keys=True)}"
        return hashlib.sha256(own.encode()).hexdigest() if settings else self.model.fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        """How another process makes it again: by loading, unless the model was given."""
        settings = self.model_dump()
        settings.pop("class_name", None)
        return _restore, (type(self), settings | ({"model": self.model} if self.model_name == LOADED else {}))

    def _encode_query(self, text: str) -> list[float]:
        """The vector of a query.

        Raises:
            TypeError: It is not a string.
        """
        query = check_query(text)
        vector: list[float] = self._encoder.encode_query(
            query, prompt=self.query_instruction, truncate_dim=self.truncate_dim, show_progress_bar=False
        ).tolist()
        return vector

    def _encode_texts(self, texts: Sequence[str], *, show_progress: bool = False) -> list[list[float]]:
        """The vectors of texts, in their order.

        Raises:
            TypeError: Naming the position of what is not a string.
        """
        vectors: list[list[float]] = self._encoder.encode_document(
            check_texts(texts),
            prompt=self.text_instruction,
            truncate_dim=self.truncate_dim,
            batch_size=self.embed_batch_size,
            show_progress_bar=show_progress,
        ).tolist()
        return vectors


def check_query(text: str) -> str:
    """The query.

    Raises:
        TypeError: It is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"the query is {_show(text)}; it must be a string")
    return text


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        TypeError: It is one text rather than several, or one of them is not a string; the message names its position.
    """
    if isinstance(texts, str | bytes | dict) or not hasattr(texts, "__iter__"):
        raise TypeError(f"expected a list of strings, got {_show(texts)}")
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(f"text {position} of {len(checked)} is {_show(text)}; every text must be a string")
    return checked


def _show(value: object) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _adapt(model: LLM2Comp, *, max_length: int | None, normalize: bool | None) -> LLM2Comp:
    """The model, or one that shares its weights and differs in what is not None; the one given stays as it is, for others may use it."""
    if max_length is None and normalize is None:
        return model
    encoder = model.encoder
    if max_length is not None:
        encoder = MemoryEncoder(encoder.backbone, encoder.tokenizer, encoder.memory, max_length=max_length)
    adapted = LLM2Comp(
        encoder,
        pooling=model.pooling,
        normalize=model.normalize if normalize is None else normalize,
        device=str(model.device),
    )
    adapted.prompts = dict(model.prompts)
    adapted.truncate_dim = model.truncate_dim
    return adapted


_IMPORTED_BY = os.getpid()


def _restore(cls: type[TextEncoder], settings: dict[str, Any]) -> TextEncoder:
    if os.getpid() != _IMPORTED_BY:
        torch.set_num_threads(1)  # a forked process has none of PyTorch's threads and would wait for them for ever
    return cls(**settings)
