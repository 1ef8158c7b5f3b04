"""One resident copy of a causal language model that serves as encoder, teacher and reader.

As the encoder its adapter is on and every token sees its whole text; as teacher and reader the adapter is off and
attention is causal. Texts enter and leave packed, end to end without padding; a model whose classes cannot be packed
runs padded inside, behind the same two methods.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.attention import Packing
from llm2comp.backbone.forward import AttentionLayout, choose_layout, rows_of_padding, run_packed, run_padded
from llm2comp.backbone.last_layer import last_attention, memory_rows_only
from llm2comp.backbone.loading import find_source, load_language_model, quiet
from llm2comp.backbone.lora import speed_up_adapter
from llm2comp.errors import BackboneError, one_line

__all__ = ["Backbone", "BackboneReference"]

_PAPER_TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_OTHER_NAMES = (
    "out_proj",
    "dense",
    "fc1",
    "fc2",
    "gate_up_proj",
)  # what Phi, OPT and others call the layers of the paper's list


@dataclass(frozen=True, slots=True)
class BackboneReference:
    """Where a backbone's weights come from, when a saved model names them instead of holding them."""

    name: str
    revision: str | None


class Backbone(nn.Module):
    """A causal language model read in two ways.

    Attributes:
        model: The language model, wrapped by PEFT once it has an adapter.
        attention: `packed` or `padded`: how texts share a forward pass.
        reference: The Hub id the weights came from; None once they are anything else, so that saving includes them.

    Raises:
        BackboneError: If the model cannot be made bidirectional.
    """

    model: PreTrainedModel | PeftModel

    def __init__(self, model: PreTrainedModel, attention: Literal["auto", "packed", "padded"] = "auto") -> None:
        super().__init__()
        model.eval()
        self.attention: AttentionLayout = choose_layout(model, attention)
        self.model = model
        self.reference: BackboneReference | None = None
        self._attention_dropout = 0.0
        self._running: tuple[PreTrainedModel, Packing] | None = None
        self._frozen: list[PreTrainedModel] = []  # in a list, so that it is no part of this module's weights
        self._lock = threading.RLock()
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock, which copies and other processes have of their own."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        attention: Literal["auto", "packed", "padded"] = "auto",
        trust_remote_code: bool = False,
    ) -> "Backbone":
        """The language model of a Hub id or folder, in the given precision.

        Raises:
            BackboneError: If it cannot be loaded, or cannot be made bidirectional.
        """
        source = find_source(name_or_path, revision)
        model = load_language_model(source, dtype=dtype, trust_remote_code=trust_remote_code)
        backbone = cls(model, attention)
        if not source.is_folder:
            backbone.reference = BackboneReference(source.name, source.revision)
        return backbone

    @property
    def language_model(self) -> PreTrainedModel:
        """The causal language model itself, adapter layers in place."""
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        assert isinstance(inner, PreTrainedModel)
        return inner

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter, rather than all weights, is what training changes."""
        return isinstance(self.model, PeftModel)

    @property
    def has_other_reader(self) -> bool:
        """Whether teacher and reader are a language model beside this one rather than its own weights."""
        return bool(self._frozen)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, which is the dimension of the embeddings."""
        return self._embedding_matrix.shape[1]

    @property
    def vocabulary_size(self) -> int:
        """Tokens that have an input embedding."""
        return self._embedding_matrix.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.language_model.dtype

    def embed(self, tokens: Tensor) -> Tensor:
        """Input embeddings of token ids, (tokens,) -> (tokens, hidden)."""
        embedded: Tensor = self.language_model.get_input_embeddings()(tokens)
        return embedded

    def embed_frozen(self, tokens: Tensor) -> Tensor:
        """Input embeddings of the frozen language model, (tokens,) -> (tokens, hidden)."""
        embedded: Tensor = self._reader(tokens.device).get_input_embeddings()(tokens)
        return embedded

    def encode(self, embeddings: Tensor, lengths: Sequence[int], *, tail: int = 0) -> Tensor:
        """Final hidden states with the adapter on and every token seeing its whole text.

        Args:
            embeddings: Input embeddings of all texts, end to end, (tokens, hidden).
            lengths: Tokens of each text.
            tail: How many tokens at the end of each text are wanted; the states of others may then be anything. 0: all.

        Returns:
            (tokens, hidden), after the final norm.
        """
        dropout = self._attention_dropout if self.training else 0.0
        with self._lock:
            return self._run(self.language_model, embeddings, lengths, causal=False, dropout=dropout, tail=tail)

    def read(self, embeddings: Tensor, lengths: Sequence[int]) -> Tensor:
        """Final hidden states of the frozen language model, causal; shapes as in `encode`. Gradients reach the embeddings."""
        with self._adapters(disabled=True):
            return self._run(self._reader(embeddings.device), embeddings, lengths, causal=True)

    def head(self, states: Tensor) -> Tensor:
        """Logits of the frozen language model, (rows, hidden) -> (rows, vocabulary)."""
        model = self._reader(states.device)
        head = model.get_output_embeddings()
        logits: Tensor = head(
            states.to(head.weight.dtype) if not torch.is_autocast_enabled(states.device.type) else states
        )
        return _scaled(logits, model.config)

    def check_head(self) -> None:
        """Compares `head` with the model's own logits.

        Raises:
            BackboneError: If the model computes its logits in a way `head` does not know.
        """
        device = self.language_model.device
        tokens = torch.arange(3, 9, device=device)
        with torch.no_grad(), self._adapters(disabled=True):
            model = self._reader(device)
            states = self._run(model, self.embed_frozen(tokens), (len(tokens),), causal=True)
            extra = (
                {"packing": Packing.of((len(tokens),), causal=True, device=device)}
                if self.attention == "packed"
                else {}
            )
            expected = model(input_ids=tokens[None], use_cache=False, **extra).logits[0]
            found = self.head(states)
        if not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            raise BackboneError(
                f"{type(model).__name__} computes its logits in a way this version does not know, so it cannot teach; "
                "its encoder still works"
            )

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Wraps the model with a fresh LoRA adapter in float32, the only weights of the backbone that are then trained.

        Raises:
            BackboneError: If the model has no layers of the names asked for.
        """
        layers = [
            (name.rpartition(".")[2], type(layer))
            for name, layer in self.language_model.named_modules()
            if isinstance(layer, (nn.Linear, Conv1D))
        ]
        names = {name for name, _ in layers}
        named = [name for name in (*_PAPER_TARGETS, *_OTHER_NAMES) if name in names]
        targets = (
            list(settings.targets) if settings.targets else named if {"q_proj", "v_proj"} <= names else "all-linear"
        )
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=targets,
            fan_in_fan_out=any(kind is Conv1D for _, kind in layers),
            task_type="CAUSAL_LM",
        )
        try:
            self._wrap(config)
        except ValueError as error:
            raise BackboneError(
                f"no adapter on {targets}: {one_line(error)}; the model's linear layers are {', '.join(sorted(names))}"
            ) from error

    def load_adapter(self, folder: Path) -> None:
        """Wraps the model with the LoRA adapter saved in a folder, to be used or trained on. Only safetensors are read.

        Raises:
            BackboneError: If it is no LoRA adapter, or was made for another language model.
        """
        name = type(self.language_model).__name__
        try:
            config = PeftConfig.from_pretrained(str(folder))
            weights = load_file(folder / "adapter_model.safetensors")
            if not isinstance(config, LoraConfig):
                raise TypeError(f"it is of kind {config.peft_type}, and this package reads LoRA")
            config.inference_mode, config.init_lora_weights, config.megatron_config, config.base_model_name_or_path = (
                False,
                True,
                None,
                None,
            )
            self._wrap(config)
        except Exception as error:  # JSON, safetensors and PEFT each raise kinds of their own
            raise BackboneError(
                f"cannot load the adapter in {folder} onto the backbone {name}: {one_line(error)}; copy the model "
                "folder again"
            ) from error
        needed = {key: weight.shape for key, weight in self.adapter_weights().items()}
        differing = sorted(
            key for key in needed.keys() | weights.keys() if key not in weights or needed.get(key) != weights[key].shape
        )
        if differing:
            raise BackboneError(
                f"the adapter in {folder} was made for another backbone than this {name}: they differ in "
                f"{len(differing)} of {len(needed)} weights, "
                f"first in {differing[0]}; give the backbone it was trained on"
            )
        set_peft_model_state_dict(self.model, weights)

    def adapter_weights(self) -> dict[str, Tensor]:
        """The adapter's weights by PEFT's names; none without an adapter."""
        return (
            get_peft_model_state_dict(self.model, save_embedding_layers=False)
            if isinstance(self.model, PeftModel)
            else {}
        )

    def weights(self) -> dict[str, Tensor]:
        """The language model's own weights by name, the adapter left out."""
        state = self.language_model.state_dict()
        return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}

    def merge_adapter(self) -> None:
        """Adds the adapter to the weights and drops it; the frozen reader is then the merged model."""
        if isinstance(self.model, PeftModel):
            self.model = self.model.merge_and_unload(safe_merge=True)
            self.reference = None

    def keep_frozen_copy(self) -> None:
        """Keeps a frozen copy as teacher and reader, for training all weights of the backbone."""
        self._frozen = [deepcopy(self.language_model).eval().requires_grad_(False)]
        self.reference = None
        head, embeddings = self.language_model.get_output_embeddings(), self.language_model.get_input_embeddings()
        if head.weight is not embeddings.weight:
            head.requires_grad_(False)  # encoding never reaches it

    def read_with(self, reader: "Backbone") -> None:
        """Makes another language model the teacher and reader, such as the one that this encoder began as before all its weights were trained.

        Raises:
            BackboneError: If its hidden states, vocabulary, positions or way of running are not those of this one.
        """
        facts = [
            (
                model.hidden_size,
                model.vocabulary_size,
                getattr(model.language_model.config, "max_position_embeddings", None),
                model.attention,
            )
            for model in (self, reader)
        ]
        for what, own, others in zip(("width", "vocabulary", "longest text", "attention"), *facts, strict=True):
            if own != others:
                raise BackboneError(
                    f"the reader's {what} is {others}, the encoder's {own}: give the language model that the encoder "
                    "was trained from"
                )
        self._frozen = [reader.language_model.eval().requires_grad_(False)]

    def set_attention_dropout(self, share: float) -> None:
        """Drops a share of the attention weights when the encoder is trained; teacher and reader stay exact.

        Raises:
            BackboneError: If the model runs padded, where its own classes attend.
        """
        if share and self.attention == "padded":
            raise BackboneError(
                f"attention dropout {share} needs packed attention, which {type(self.language_model).__name__} does "
                "not support; set it to 0"
            )
        self._attention_dropout = share

    def enable_checkpointing(self) -> None:
        """Recomputes activations in the backward pass, each in the adapter state it was recorded in.

        Raises:
            BackboneError: If the model runs padded.
        """
        if self.attention == "padded":
            raise BackboneError(
                f"gradient checkpointing needs packed attention, which {type(self.language_model).__name__} does not "
                "support; turn it off"
            )
        for model in (self.language_model, *self._frozen):
            enable = (
                getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            )  # its older name
            enable({"use_reentrant": False, "context_fn": self._checkpoint_contexts})
            model.disable_input_require_grads()  # which reentrant checkpoints alone need
        for model in self._frozen:
            model.train()  # transformers checkpoints in training only; nothing else differs, for its dropout is off

    @property
    def _embedding_matrix(self) -> Tensor:
        weight = self.language_model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight

    def _wrap(self, config: LoraConfig) -> None:
        with quiet():
            self.model = get_peft_model(self.language_model, config)
        speed_up_adapter(self.model)
        self.model.eval()

    def _reader(self, device: torch.device) -> PreTrainedModel:
        if not self._frozen:
            return self.language_model
        if self._frozen[0].device != device:
            self._frozen[0].to(device)  # type: ignore[arg-type]  # a device by position
        return self._frozen[0]

    @contextmanager
    def _adapters(self, *, disabled: bool) -> Iterator[None]:
        """Holds the adapter on or off for one pass; another thread waits."""
        with self._lock:
            layers = self._adapter_layers()
            before = [layer._disable_adapters for layer in layers]
            for layer in layers:
                layer._disable_adapters = disabled
            try:
                yield
            finally:
                for layer, state in zip(layers, before, strict=True):
                    layer._disable_adapters = state

    def _adapter_layers(self) -> list[BaseTunerLayer]:
        return (
            [layer for layer in self.model.modules() if isinstance(layer, BaseTunerLayer)]
            if isinstance(self.model, PeftModel)
            else []
        )

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        layers = self._adapter_layers()
        return nullcontext(), self._again(self._running, disabled=bool(layers) and layers[0]._disable_adapters)

    @contextmanager
    def _again(self, running: tuple[PreTrainedModel, Packing] | None, *, disabled: bool) -> Iterator[None]:
        """The state that a pass was in, for what is recomputed of it."""
        with self._adapters(disabled=disabled), memory_rows_only(*running) if running else nullcontext():
            yield

    def _run(
        self,
        model: PreTrainedModel,
        embeddings: Tensor,
        lengths: Sequence[int],
        *,
        causal: bool,
        dropout: float = 0.0,
        tail: int = 0,
    ) -> Tensor:
        on_cpu = embeddings.device.type == "cpu"
        if self.attention == "padded":
            return run_padded(model, embeddings, lengths, causal=causal)
        packing = Packing.of(
            lengths,
            causal=causal,
            device=embeddings.device,
            dropout=dropout,
            padding=rows_of_padding(embeddings),
            tail=tail,
            tails_of=last_attention(model) if tail and on_cpu else None,
        )
        self._running = model, packing
        try:
            with memory_rows_only(model, packing):
                return run_packed(model, embeddings, packing)
        finally:
            self._running = None


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """Logits as Cohere, Granite and Gemma 2 scale or cap them after their head."""
    scale: Callable[[str], float | None] = lambda name: getattr(config, name, None)  # noqa: E731
    if (factor := scale("logit_scale")) is not None:
        logits = logits * factor
    if (divisor := scale("logits_scaling")) is not None:
        logits = logits / divisor
    if (cap := scale("final_logit_softcapping")) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
