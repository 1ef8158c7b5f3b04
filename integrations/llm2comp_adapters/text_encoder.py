"""Settings and encoding that the embedding classes for LlamaIndex and LangChain share."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    computed_field,
    model_validator,
)

import llm2comp
from llm2comp.bundled_models import DEFAULT_MODEL, as_folder
from llm2comp_adapters.remote import RemoteEncoder
from llm2comp_adapters.server import Server

if TYPE_CHECKING:
    from llm2comp import LLM2Comp
else:
    LLM2Comp = Any  # checked by `_loaded`: with a server, the process never imports torch

__all__ = ["BUNDLED", "LOADED", "TextEncoder", "check_query", "check_texts"]

BUNDLED = DEFAULT_MODEL
"""The `model_name` of the default bundled model; a folder of that name is given as `./llm2comp-tiny`."""

LOADED = "a loaded model"
"""The `model_name` of an object created with `model`."""


def _name(value: Any) -> Any:
    return BUNDLED if value is None else as_folder(value) if isinstance(value, Path) else value


def _loaded(value: Any) -> Any:
    if isinstance(value, str | Path):
        raise ValueError(
            f"expected a loaded model (llm2comp.load); give the folder or Hub id {str(value)!r} as model_name"
        )
    if value is not None and not isinstance(value, llm2comp.LLM2Comp):
        raise ValueError(f"Input should be an instance of LLM2Comp, not {_show(value)}")
    return value


class TextEncoder(BaseModel):
    """Settings of an encoder, which is loaded when the object is created; base of each framework's embedding class.

    Without arguments, the encoder is the bundled model as it was saved. Any number of threads may use one object. A
    dump contains the settings and the fingerprint of the model, which is checked when an object is created from it.
    Pickling does the same: it contains weights only if they were passed as `model`.

    With `base_url`, texts are encoded by a server (`llm2comp serve`); no model is loaded in this process, and
    `model_name` is the name that the server knows it by. The key is not in a dump, but in a pickle.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), validate_assignment=True
    )

    model_name: Annotated[str, BeforeValidator(_name)] = Field(
        default=BUNDLED, frozen=True, description="Bundled model, folder or Hub id."
    )
    model: Annotated[LLM2Comp, BeforeValidator(_loaded)] = Field(  # None only until it is loaded
        default=cast("LLM2Comp", None),
        exclude=True,
        repr=False,
        frozen=True,
        description="A loaded model, instead of model_name and device.",
    )
    device: str | None = Field(
        default=None, frozen=True, description="cpu, cuda, cuda:1 …; None: a GPU if there is one."
    )
    embed_batch_size: int = Field(default=64, gt=0, le=2048, description="Number of texts that are tokenised together.")
    query_instruction: str | None = Field(
        default=None, description="Text before each query; None: that of the saved model; an empty text: none."
    )
    text_instruction: str | None = Field(
        default=None, description="Text before each text; None: that of the saved model, which is none."
    )
    max_length: int | None = Field(
        default=None,
        frozen=True,
        description="Maximum input in tokens, memory tokens included; longer texts are cut at the end.",
    )
    truncate_dim: int | None = Field(
        default=None,
        gt=0,
        frozen=True,
        description="Number of components kept of each vector, which is scaled to unit length again.",
    )
    normalize: bool | None = Field(
        default=None,
        frozen=True,
        description="Whether vectors are scaled to unit length; None: as the model was saved.",
    )
    show_progress: bool = Field(default=False, description="Show a progress bar when many texts are embedded.")
    base_url: str | None = Field(
        default=None, frozen=True, description="Address of `llm2comp serve`, which encodes; None: this process does."
    )
    api_key: SecretStr | None = Field(
        default=None, exclude=True, repr=False, frozen=True, description="Key that the server wants."
    )
    timeout: float = Field(default=60.0, gt=0, frozen=True, description="Seconds until the server must have answered.")
    max_retries: int = Field(
        default=5, ge=0, frozen=True, description="Further tries when the server is overloaded, when it says to."
    )

    _encoder: LLM2Comp | RemoteEncoder = PrivateAttr()

    @model_validator(mode="wrap")
    @classmethod
    def _load(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """The object, with its model loaded after the settings were found valid.

        Raises:
            ModelFolderError, BackboneError: As `llm2comp.load`.
            ServerError: The server cannot be reached, refuses the key, or has no such model.
            ValidationError: Settings contradict each other or the model, or `fingerprint` is that of another model.
        """
        if not isinstance(data, dict):
            return handler(data)  # an object of this class, validated again
        settings = {
            name: value
            for name, value in data.items()
            if name != "fingerprint" and not (name == "model" and value is None)
        }
        encoder = handler(settings)
        if encoder.base_url is not None:
            encoder._set_server(encoder.base_url)
        else:
            encoder._set_model(loaded="model" in settings)
        expected = data.get("fingerprint")
        if expected is not None and expected != encoder.fingerprint:
            raise ValueError(
                f"the model {encoder.model_name!r} with these settings has the fingerprint {encoder.fingerprint[:12]}, "
                f"expected {str(expected)[:12]}: it is another one, or was trained since; name the right model, or "
                "leave the fingerprint out"
            )
        return encoder

    def _set_server(self, url: str) -> None:
        """Sets the encoder: the server's model named `model_name`, or its first one."""
        for name in ("model", "device", "max_length", "normalize"):
            if getattr(self, name) is not None:
                raise ValueError(f"base_url is given together with {name}, which the server decides: give either")
        key = self.api_key.get_secret_value() if self.api_key else None
        chosen = self.model_name if "model_name" in self.model_fields_set else None
        self._encoder = RemoteEncoder(Server(url, key, self.timeout, self.max_retries), chosen)
        self.__dict__["model_name"] = self._encoder.name  # the field is frozen
        self._check_dimension()

    def _set_model(self, *, loaded: bool) -> None:
        """Sets the model and the encoder: the model in `model` if it is `loaded`, else the one named `model_name`."""
        named = self.model_name != LOADED and "model_name" in self.model_fields_set
        if loaded and (named or self.device is not None):
            raise ValueError(
                "model is given together with model_name or device, which are for loading one: give either"
            )
        if not loaded and self.model_name == LOADED:
            raise ValueError(
                "these settings are of an object made from a loaded model: give that model again (model=…), or its "
                "folder (model_name=…)"
            )
        model = self.model if loaded else llm2comp.load(self.model_name, device=self.device)
        # Both fields are frozen, so they are set in the dictionary of the object
        self.__dict__.update(model=model, model_name=LOADED if loaded else self.model_name)
        self._encoder = _adapt(model, max_length=self.max_length, normalize=self.normalize)
        self._check_dimension()

    def _check_dimension(self) -> None:
        dimension = self._encoder.get_embedding_dimension()
        if self.truncate_dim is not None and dimension is not None and self.truncate_dim > dimension:
            raise ValueError(f"truncate_dim is {self.truncate_dim}, the model's vectors have {dimension} components")

    @computed_field(repr=False)  # type: ignore[prop-decorator]
    @property
    def fingerprint(self) -> str:
        """Hash that changes whenever the vectors do, for the key of a cache; without further settings, the model's."""
        return self._hash("query_instruction", "text_instruction", "max_length", "truncate_dim", "normalize")

    @property
    def document_fingerprint(self) -> str:
        """As `fingerprint`, of what the direction of a document's vector depends on."""
        return self._hash("text_instruction", "max_length", "truncate_dim")

    @property
    def plain_fingerprint(self) -> str:
        """Fingerprint of the model without the settings."""
        return self._encoder.fingerprint if self.model is None else self.model.fingerprint

    @property
    def dimension(self) -> int:
        """Length of a vector; 0: unknown."""
        return self.truncate_dim or self._encoder.get_embedding_dimension() or 0

    def _hash(self, *names: str) -> str:
        settings = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        fingerprint: str = self.plain_fingerprint
        if not settings:
            return fingerprint
        return hashlib.sha256(f"{fingerprint} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        """Function and settings that create the object in another process; the model is loaded there if it was here."""
        settings = self.model_dump()
        settings.pop("class_name", None)
        if self.model_name == LOADED:
            settings["model"] = self.model
        return _restore, (type(self), settings | ({"api_key": self.api_key} if self.api_key else {}))

    def _encode_query(self, text: str) -> list[float]:
        """The vector of a query.

        Raises:
            TypeError: The query is not a string.
        """
        query = check_query(text)
        vector: list[float] = self._encoder.encode_query(
            query, prompt=self.query_instruction, truncate_dim=self.truncate_dim, show_progress_bar=False
        ).tolist()
        return vector

    def _encode_texts(self, texts: Sequence[str], *, show_progress: bool = False) -> list[list[float]]:
        """Vectors of texts, in their order.

        Raises:
            TypeError: One of them is not a string; the message names its position.
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
    """The query, unaltered.

    Raises:
        TypeError: It is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"the query is {_show(text)}; it must be a string")
    return text


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        TypeError: `texts` is a single text, or one of them is not a string; the message names its position.
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
    """The model; with a setting that is not None, a new one with that setting and the same weights.

    The model itself is not changed, because others may use it.
    """
    if max_length is None and normalize is None:
        return model
    from llm2comp.encoder import MemoryEncoder

    encoder = model.encoder
    if max_length is not None:
        encoder = MemoryEncoder(encoder.backbone, encoder.tokenizer, encoder.memory, max_length=max_length)
    return model.variant(encoder=encoder, normalize=model.normalize if normalize is None else normalize)


def _restore(cls: type[TextEncoder], settings: dict[str, Any]) -> TextEncoder:
    return cls(**settings)
