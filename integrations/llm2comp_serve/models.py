"""The models of a server: each loaded once, with a queue."""

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import llm2comp
from llm2comp.errors import SettingsError
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_serve.batching import Batcher, QueueFullError
from llm2comp_serve.errors import RequestError
from llm2comp_serve.metrics import Metrics
from llm2comp_serve.settings import ServeSettings

__all__ = ["QUERY_SUFFIX", "Model", "Models", "Tokens"]

QUERY_SUFFIX = ":query"
"""After the name of a model: texts are queries, for clients that cannot say so otherwise."""


class Tokens(NamedTuple):
    """Token ids of texts, and the number of texts that were cut."""

    ids: list[list[int]]
    truncated: int

    @property
    def total(self) -> int:
        """Number of tokens, those of the instruction and the beginning included, memory tokens not."""
        return sum(map(len, self.ids))


class Model:
    """A model and its queue.

    Args:
        name: What requests call it.
        model: The model.
        settings: Settings of the server.
        metrics: Counts its batches.
    """

    def __init__(self, name: str, model: llm2comp.LLM2Comp, settings: ServeSettings, metrics: Metrics) -> None:
        self.name, self.model = name, model
        self.dimension: int = model.encoder.get_embedding_dimension()
        self.max_length = model.encoder.max_seq_length
        self.fingerprint = model.fingerprint
        self._truncate = settings.truncate
        self._spelling = threading.Lock()
        self.batcher = Batcher(
            self._vectors,
            batch_tokens=settings.batch_tokens,
            queue_tokens=settings.queue_tokens,
            overhead=model.memory_tokens,
            batching=settings.batching,
            encode_memory=self._with_memory,
            watch=metrics.batch_watcher(name),
        )
        metrics.watch_queue(name, lambda: self.batcher.waiting_tokens)

    def tokenize(
        self,
        texts: Sequence[str],
        *,
        query: bool = False,
        truncate: bool | None = None,
        instruction: str | None = None,
    ) -> Tokens:
        """Token ids of texts, after the instruction; None: the model's for queries or for documents, if it has one.

        Raises:
            RequestError: A text is longer than the model takes, and is not to be cut (status 413), or the instruction
                leaves no room for a text (400).
        """
        encoder, room = self.model.encoder, self.max_length - self.model.memory_tokens
        encoder.pop_truncated()
        if instruction is None:
            instruction = self.model.prompts.get("query" if query else "document") or ""
        elif len(encoder.token_ids([instruction])[0]) >= room:
            raise RequestError(
                400, f"instruction takes all of the {room} tokens that {self.name} takes", parameter="instruction"
            )
        ids = encoder.token_ids([instruction + text for text in texts] if instruction else texts)
        truncated = encoder.pop_truncated()
        if truncated and not (self._truncate if truncate is None else truncate):
            raise RequestError(
                413,
                f"{truncated} of {len(texts)} texts have more than the {room} tokens that {self.name} takes; shorten "
                "them, or set truncate to true",
                code="context_length_exceeded",
            )
        return Tokens(ids, truncated)

    def spell(self, text: str, *, beginning: bool) -> list[dict[str, Any]]:
        """Tokens of a text: id, text, whether it is special, and where it begins and ends in characters."""
        encoder = self.model.encoder
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as `token_ids` does
        with self._spelling:  # calls of transformers' tokenizer fail in two threads at once
            encoding = encoder.tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
            )
        tokens: list[dict[str, Any]] = [
            {"id": token, "text": text[start:stop], "special": False, "start": start, "stop": stop}
            for token, (start, stop) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        ]
        if not beginning:
            return tokens
        first = encoder.beginning
        word = encoder.tokenizer.convert_ids_to_tokens(first)
        return [{"id": first, "text": word, "special": True, "start": None, "stop": None}, *tokens]

    def submit(self, tokens: Tokens, *, memory: bool = False) -> "Future[NDArray[np.float32]]":
        """The vectors (texts, dimension), later; with `memory` (texts, 1 + k, dimension), memory states after each.

        Raises:
            RequestError: The queue is full (status 429).
        """
        try:
            return self.batcher.submit(tokens.ids, memory=memory)
        except QueueFullError as error:
            raise RequestError(
                429,
                f"too many texts are waiting for {self.name}; try again in {error.seconds:.0f} s",
                code="overloaded",
                headers={"Retry-After": str(math.ceil(error.seconds))},
            ) from error

    def _vectors(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors (texts, dimension) of token ids."""
        return self._checked(self._run(ids)["sentence_embedding"])

    def _with_memory(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors of token ids, and the states of their memory tokens, (texts, 1 + k, dimension)."""
        output = self._run(ids)
        return self._checked(torch.cat([output["sentence_embedding"][:, None], output["token_embeddings"]], dim=1))

    def _run(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        device = self.model.device
        with torch.inference_mode():
            output: dict[str, torch.Tensor] = self.model(
                {name: tensor.to(device) for name, tensor in self.model.encoder.pad(ids).items()}
            )
        return output

    def _checked(self, tensor: torch.Tensor) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = tensor.float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise RuntimeError("a vector is not finite; serve the model with --dtype float32, or check its weights")
        return vectors


class Models:
    """The models by name; one that several names stand for is loaded once."""

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._by_name: dict[str, Model] = {}

    def __iter__(self) -> Iterator[Model]:
        return iter(dict.fromkeys(self._by_name.values()))

    @property
    def names(self) -> list[str]:
        """Names that requests may give, several of one model included."""
        return list(self._by_name)

    def load(self, name: str, *, max_length: int | None = None) -> Model:
        """The model of a name, folder or Hub id; one of its fingerprint that is loaded gets this name too.

        Args:
            name: Name, folder or Hub id.
            max_length: Maximum length of a text in tokens, which its name then ends in; None: the model's own.

        Raises:
            LLM2CompError: As `llm2comp.load`.
        """
        settings = self._settings
        loaded = llm2comp.load(
            name, device=settings.device, dtype=settings.dtype, engine=settings.engine, max_length=max_length
        )
        shown = Path(name).resolve().name if "/" in name and Path(name).exists() else name
        if max_length is not None:  # the plain name is that of the model with its own length
            shown += f"-{max_length}"
        same = next((model for model in self if model.fingerprint == loaded.fingerprint), None)
        if same is not None and self._by_name.get(shown) is same:
            return same
        while shown in self._by_name:  # two folders of one name
            shown += "-2"
        self._by_name[shown] = same or Model(shown, loaded, settings, self._metrics)
        return self._by_name[shown]

    def of_index(self, manifest: Manifest, place: str) -> Model:
        """The model of an index: the one of its fingerprint, loaded under its name if it is not served yet.

        Raises:
            LLM2CompError: The model cannot be loaded, is not the one of the index, or is not known.
        """
        for model in self:
            # vectors made elsewhere: by the model that the command names, not by one that another index brought
            if model.fingerprint == manifest.fingerprint or (not manifest.fingerprint and self._settings.models):
                return model
        if manifest.model is None:
            raise SettingsError(f"{place}: does not say which model made its vectors; name it (--model)")
        loaded = self.load(manifest.model, max_length=manifest.encoder.max_length)
        if loaded.fingerprint != manifest.fingerprint:
            raise SettingsError(f"{place}: {manifest.model} is not the model that it was built with (--model)")
        return loaded

    def find(self, name: str | None) -> tuple[Model, bool]:
        """The model that a request names, and whether its texts are queries by that name; None is the first model.

        Raises:
            RequestError: There is no such model (status 404).
        """
        if name is None:
            return next(iter(self._by_name.values())), False
        is_query = name.endswith(QUERY_SUFFIX)
        model = self._by_name.get(name.removesuffix(QUERY_SUFFIX))
        if model is None:
            known = ", ".join(self._by_name)
            raise RequestError(
                404, f"there is no model {name!r} here; served are: {known}", parameter="model", code="model_not_found"
            )
        return model, is_query

    def close(self) -> None:
        """Encodes what is waiting for each model, and ends their threads."""
        for model in self:
            model.batcher.close()
