"""LLM2Comp: a SentenceTransformer whose first module compresses each text into k memory tokens."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor
from transformers import AutoTokenizer

from llm2comp.adapter import PAPER_ADAPTER, AdapterSettings
from llm2comp.backbone import Backbone
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.hardware import inference_dtype
from llm2comp.model_folder import CONFIG_FILE, cast_weights, read_config, read_encoder, write_config
from llm2comp.pooling import ClusterMerge

__all__ = ["BUNDLED_MODEL", "LLM2Comp", "load"]

BUNDLED_MODEL = Path(__file__).parent / "bundled" / "llm2comp-tiny"
_logger = logging.getLogger(__name__)


def load(name_or_path: str | Path | None = None, *, device: str | None = None, dtype: str = "auto", trust_remote_code: bool = False) -> "LLM2Comp":
    """A model ready to encode.

    Args:
        name_or_path: A folder, a Hub id, or None for the small English model that comes with the package.
        device: `cpu`, `cuda`, `cuda:1` …; None takes a GPU if there is one.
        dtype: Precision of the weights: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the hardware
            multiplies it natively and float32 elsewhere.
        trust_remote_code: Run Python code that comes with the backbone.

    Raises:
        ModelFolderError: If files are missing, cut short or altered.
        BackboneError: If the backbone cannot be loaded or does not match.

    Example:
        >>> import llm2comp
        >>> model = llm2comp.load()
        >>> model.encode_query("How do I split a path?").shape
        (256,)
    """
    folder = _local_folder(name_or_path)
    config = read_config(folder)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    parts = read_encoder(folder, dtype=inference_dtype(dtype, chosen), trust_remote_code=trust_remote_code)
    encoder = MemoryEncoder(parts.backbone, parts.tokenizer, parts.memory, max_length=parts.max_length)
    model = LLM2Comp(encoder, pooling=config["pooling"], query_instruction=config["query_instruction"], device=chosen)
    model.stages = list(config["stages"])
    model._fingerprint = config["fingerprint"]
    return model


class LLM2Comp(SentenceTransformer):
    """A text encoder made of a causal language model and k memory tokens.

    Everything SentenceTransformer does works: `encode`, `encode_query`, `encode_document`, `similarity`, `truncate_dim`,
    its trainer and its evaluators. Vectors have unit length unless `normalize=False`.

    Attributes:
        stages: Training stages this model has been through, in order.

    Example:
        >>> import llm2comp
        >>> model = llm2comp.load()
        >>> documents = model.encode_document(["Return the square root of x.", "Remove a file or directory."])
        >>> documents.shape
        (2, 256)
    """

    def __init__(
        self,
        encoder: MemoryEncoder,
        *,
        pooling: dict[str, Any] | None = None,
        query_instruction: str = "",
        normalize: bool = True,
        device: str | None = None,
    ) -> None:
        self.pooling = pooling or {"mode": "mean"}
        modules = [encoder, _pooling(self.pooling, encoder.get_embedding_dimension())]
        super().__init__(
            modules=[*modules, Normalize()] if normalize else modules,
            prompts={"query": query_instruction, "document": ""},
            device=device,
            similarity_fn_name="cosine",
        )
        self.stages: list[str] = []
        self._fingerprint: str | None = None

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
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        attention: Literal["auto", "packed", "padded"] = "auto",
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> "LLM2Comp":
        """An untrained encoder around a causal language model.

        Args:
            name_or_path: Hub id or folder of the language model.
            memory_tokens: k; 1 to 8 serve most tasks alike, retrieval is best at 8 (paper, section 4).
            adapter: LoRA settings, or None to train all weights.
            max_length: Longest input in tokens, memory tokens included.
            query_instruction: Text put before queries, never before documents.
            pooling: `{"mode": "mean"}` or `{"mode": "cluster", "threshold": 0.9}`.
            normalize: Whether vectors have unit length.
            revision: Commit or branch of a Hub id.
            dtype: Precision of the backbone's weights; adapter and memory tokens are float32.
            attention: How texts share a forward pass; `auto` packs them where the model's classes allow.
            device: Where to put it; None takes a GPU if there is one.
            trust_remote_code: Run Python code that comes with the language model.

        Raises:
            BackboneError: If the model cannot be loaded, cannot be made bidirectional, or has no beginning token.
        """
        if memory_tokens < 1:
            raise SettingsError(f"memory_tokens is {memory_tokens}; give at least 1")
        backbone = Backbone.load(name_or_path, revision=revision, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(name_or_path), revision=revision, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(f"{name_or_path} has no tokenizer that loads: {str(error).splitlines()[0]}") from error
        if adapter is not None:
            backbone.language_model.requires_grad_(False)
            backbone.add_adapter(adapter)
        encoder = MemoryEncoder(backbone, tokenizer, _initial_memory(backbone, memory_tokens), max_length=max_length)
        return cls(encoder, pooling=pooling, query_instruction=query_instruction, normalize=normalize, device=device)

    @property
    def encoder(self) -> MemoryEncoder:
        """The module that makes memory states."""
        encoder = self[0]
        assert isinstance(encoder, MemoryEncoder)
        return encoder

    @property
    def memory_tokens(self) -> int:
        """k, the memory tokens of a text."""
        return self.encoder.memory_tokens

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex over everything that determines the vectors; indexes remember it and refuse another model's queries."""
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self)
        return self._fingerprint

    def encode(self, inputs: Any, *args: Any, precision: Any = "float32", **kwargs: Any) -> Any:
        """Embeddings of one text, (dim,), or of many, (texts, dim), in the order given.

        The arguments are SentenceTransformer's; `precision` also takes `bfloat16` (a tensor) beside `float32`, `int8`,
        `uint8`, `binary` and `ubinary`. Texts longer than `max_seq_length` keep their beginning, and one warning says
        how many there were.

        Raises:
            TypeError: Naming the position of an input that is not a string.
        """
        _check_texts(inputs)
        self.encoder.pop_truncated()
        half = precision == "bfloat16"
        if half:
            kwargs.update(convert_to_tensor=True)
        embeddings = super().encode(inputs, *args, precision="float32" if half else precision, **kwargs)
        if truncated := self.encoder.pop_truncated():
            _logger.warning("%d of %d texts were cut to their first %d tokens", truncated, 1 if isinstance(inputs, str) else len(inputs), self.max_seq_length)
        if half:
            return embeddings.to(torch.bfloat16)
        if isinstance(embeddings, np.ndarray) and not embeddings.size:
            return np.zeros((0, self.get_embedding_dimension() or 0), dtype=np.float32)
        return embeddings

    def _inference(self, inputs: list[Any], **kwargs: Any) -> Any:
        embeddings = super()._inference(inputs, **kwargs)
        return embeddings.float() if isinstance(embeddings, Tensor) else embeddings

    def encode_memory(self, texts: Sequence[str], *, batch_size: int = 32, show_progress_bar: bool = False) -> np.ndarray:
        """Memory states of each text before pooling, (texts, k, dim), float32."""
        if not len(texts):
            return np.zeros((0, self.memory_tokens, self.encoder.get_embedding_dimension()), dtype=np.float32)
        states = self.encode(list(texts), batch_size=batch_size, show_progress_bar=show_progress_bar, output_value="token_embeddings")
        return torch.stack([state.float().cpu() for state in states]).numpy()

    def save(self, path: str | Path, *args: Any, weights_dtype: torch.dtype | None = None, **kwargs: Any) -> None:
        """Writes the model folder (memory tokens, adapter, tokenizer, the backbone or its Hub id), whole or not at all.

        Args:
            path: A new or empty folder, or one that holds a model, which is then replaced.
            args: What SentenceTransformer.save also takes; not used.
            weights_dtype: Precision of the weights written, such as torch.bfloat16 for half the size; the model in memory
                keeps its own, and the fingerprint written is that of the rounded weights. None writes them as they are.
            kwargs: As `args`.

        Raises:
            ModelFolderError: If the path holds something that is not a model.
        """
        target = Path(path)
        if target.exists() and not (target / CONFIG_FILE).is_file() and (target.is_file() or any(target.iterdir())):
            raise ModelFolderError(f"{target} exists and holds no llm2comp model; give a new or empty folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            super().save(str(unfinished), create_model_card=False)
            if weights_dtype is not None:
                cast_weights(unfinished, weights_dtype)
            write_config(
                unfinished,
                {
                    "pooling": self.pooling,
                    "query_instruction": self.prompts.get("query", ""),
                    "stages": self.stages,
                    "fingerprint": self.fingerprint if weights_dtype is None else _fingerprint(self, weights_dtype),
                },
            )
            _write_card(self, unfinished, target)
            unfinished.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            unfinished.replace(target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def changed(self, stage: str | None = None) -> None:
        """Notes that the weights are new, and by which training stage."""
        self._fingerprint = None
        if stage:
            self.stages.append(stage)


def _local_folder(name_or_path: str | Path | None) -> Path:
    if name_or_path is None:
        return BUNDLED_MODEL
    folder = Path(name_or_path)
    if folder.exists() or str(name_or_path).count("/") != 1:
        if not folder.exists():
            raise ModelFolderError(f"no model at {str(name_or_path)!r}: give a folder, a Hub id such as owner/name, or nothing for the bundled model")
        return folder
    from huggingface_hub import snapshot_download  # reached only for Hub ids

    try:
        return Path(snapshot_download(str(name_or_path)))
    except Exception as error:  # the hub raises a dozen kinds, from its own and from two HTTP libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFolderError(f"no folder {str(name_or_path)!r}, and the Hub did not give a model of that id: {reason}") from error


def _pooling(settings: dict[str, Any], dimension: int) -> Pooling | ClusterMerge:
    match settings:
        case {"mode": "mean"}:
            return Pooling(dimension, pooling_mode="mean")
        case {"mode": "cluster", "threshold": float(threshold)}:
            return ClusterMerge(dimension, threshold)
    raise SettingsError(f'pooling is {settings}; give {{"mode": "mean"}} or {{"mode": "cluster", "threshold": 0.9}}')


def _initial_memory(backbone: Backbone, memory_tokens: int) -> Tensor:
    """The mean input embedding plus small noise of its own spread, (k, hidden); the noise tells the tokens apart."""
    vocabulary = backbone.language_model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        embeddings = backbone.embed(torch.arange(vocabulary)).float()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(memory_tokens, embeddings.shape[1], generator=generator)
    return embeddings.mean(0) + 0.1 * embeddings.std(0) * noise


def _check_texts(inputs: Any) -> None:
    if isinstance(inputs, str):
        return
    if inputs is None or isinstance(inputs, (bytes, int, float)):
        raise TypeError(f"encode takes a string or a list of strings, not {type(inputs).__name__}")
    for position, text in enumerate(inputs):
        if not isinstance(text, str):
            raise TypeError(f"text {position} is {type(text).__name__} {str(text)[:40]!r}; every text must be a string")


def _fingerprint(model: LLM2Comp, dtype: torch.dtype | None = None) -> str:
    """Hashes values, not precisions: weights read back in another precision that holds them exactly are the same model."""
    encoder = model.encoder
    backbone = encoder.backbone
    reference = backbone.reference
    settings = {
        "backbone": [reference.name, reference.revision] if reference else None,
        "max_length": model.max_seq_length,
        "pooling": model.pooling,
        "query_instruction": model.prompts.get("query", ""),
        "normalize": len(model) == 3,
        "tokenizer": hashlib.sha256(encoder.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
    }
    tensors = {"memory": encoder.memory.detach()}
    if isinstance(backbone.model, PeftModel):
        tensors |= get_peft_model_state_dict(backbone.model, save_embedding_layers=False)
    if reference is None:
        tensors |= backbone.weights()
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if tensor.is_floating_point():
            tensor = tensor.to(dtype or tensor.dtype).float()
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_card(model: LLM2Comp, folder: Path, target: Path) -> None:
    """A model card with what is known; an existing card of the same folder is kept, for it may say more."""
    previous = target / "README.md"
    if previous.is_file():
        shutil.copy(previous, folder / "README.md")
        return
    reference = model.encoder.backbone.reference
    lines = [
        "---",
        "library_name: llm2comp",
        "pipeline_tag: feature-extraction",
        "tags: [llm2comp, sentence-transformers]",
        "---",
        f"# {target.name}",
        "",
        f"A text encoder: {'`' + reference.name + '`' if reference else 'the included language model'} with {model.memory_tokens} memory tokens.",
        f"Stages: {', '.join(model.stages) or 'none (untrained)'}. Longest input: {model.max_seq_length} tokens.",
        "",
        "```python",
        "import llm2comp",
        f'model = llm2comp.load("{target.name}")',
        "```",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
