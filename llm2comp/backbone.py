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
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm2comp.adapter import AdapterSettings
from llm2comp.attention import PACKED_ATTENTION, Packing
from llm2comp.errors import BackboneError
from llm2comp.probe import probe

__all__ = ["Backbone", "BackboneReference"]

_PAPER_TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Attention = Literal["auto", "packed", "padded"]


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
    """

    model: PreTrainedModel | PeftModel

    def __init__(self, model: PreTrainedModel | PeftModel, attention: Attention = "auto") -> None:
        super().__init__()
        self.model = model
        self.attention: Literal["packed", "padded"] = "packed"
        self._lock = threading.RLock()
        self.reference: BackboneReference | None = None
        self._frozen: list[PreTrainedModel] = []  # in a list, so that it is no part of this module's weights
        for module in self.language_model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.set_attention_dropout(0.0)
        self._adopt(attention)

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        attention: Attention = "auto",
        trust_remote_code: bool = False,
    ) -> "Backbone":
        """The language model of a Hub id or folder, in the given precision.

        Raises:
            BackboneError: If it cannot be loaded, or cannot be made bidirectional.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(name_or_path), revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, attn_implementation="eager", use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BackboneError(f"cannot load the language model {str(name_or_path)!r}: {reason}") from error
        backbone = cls(model, attention)
        if not Path(name_or_path).exists():
            backbone.reference = BackboneReference(str(name_or_path), getattr(model.config, "_commit_hash", None) or revision)
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
    def hidden_size(self) -> int:
        """Width of the hidden states, which is the dimension of the embeddings."""
        return int(self.language_model.get_input_embeddings().weight.shape[1])

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

    def encode(self, embeddings: Tensor, lengths: Sequence[int]) -> Tensor:
        """Final hidden states with the adapter on and every token seeing its whole text.

        Args:
            embeddings: Input embeddings of all texts, end to end, (tokens, hidden).
            lengths: Tokens of each text.

        Returns:
            (tokens, hidden), after the final norm.
        """
        with self._lock:
            return self._run(self.language_model, embeddings, lengths, causal=False)

    def read(self, embeddings: Tensor, lengths: Sequence[int]) -> Tensor:
        """Final hidden states of the frozen language model, causal; shapes as in `encode`. Gradients reach the embeddings."""
        with self._lock, self._without_adapter():
            return self._run(self._reader(embeddings.device), embeddings, lengths, causal=True)

    def head(self, states: Tensor) -> Tensor:
        """Logits of the frozen language model, (rows, hidden) -> (rows, vocabulary)."""
        model = self._reader(states.device)
        head = model.get_output_embeddings()
        logits: Tensor = head(states.to(head.weight.dtype) if not torch.is_autocast_enabled(states.device.type) else states)
        return _scaled(logits, model.config)

    def check_head(self) -> None:
        """Compares `head` with the model's own logits.

        Raises:
            BackboneError: If the model computes its logits in a way `head` does not know.
        """
        device = next(self.parameters()).device
        tokens = torch.arange(3, 9, device=device)
        with torch.no_grad(), self._lock, self._without_adapter():
            model = self._reader(device)
            states = self._run(model, self.embed(tokens), (len(tokens),), causal=True)
            packing = Packing.of((len(tokens),), causal=True, device=device)
            extra = {"packing": packing} if self.attention == "packed" else {}
            expected = model(input_ids=tokens[None], use_cache=False, **extra).logits[0]
            found = self.head(states)
        if not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            raise BackboneError(f"{type(model).__name__} computes its logits in a way this version does not know, so it cannot teach; its encoder still works")

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Wraps the model with a fresh LoRA adapter in float32, the only weights of the backbone that are then trained."""
        names = {name.rpartition(".")[2] for name, layer in self.language_model.named_modules() if isinstance(layer, nn.Linear)}
        paper = [name for name in _PAPER_TARGETS if name in names]
        targets = list(settings.targets) if settings.targets else paper if {"q_proj", "v_proj"} <= names else "all-linear"
        config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets, task_type="CAUSAL_LM")
        try:
            self.model = get_peft_model(self.language_model, config)
        except ValueError as error:
            raise BackboneError(f"no adapter on {targets}: {error}; the model's linear layers are {sorted(names)}") from error
        self.model.eval()

    def load_adapter(self, folder: Path) -> None:
        """Wraps the model with the adapter saved in a folder."""
        try:
            self.model = PeftModel.from_pretrained(self.language_model, str(folder), is_trainable=True)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(f"the adapter in {folder} does not fit the backbone {type(self.language_model).__name__}: {reason}") from error
        self.model.eval()

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

    def set_attention_dropout(self, share: float) -> None:
        """Drops a share of the attention weights in training; 0 until this is called, so that teacher and reader are exact."""
        for module in self.language_model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = share

    def enable_checkpointing(self) -> None:
        """Recomputes activations in the backward pass, each in the adapter state it was recorded in."""
        if self.attention == "padded":
            raise BackboneError("gradient checkpointing needs packed attention, which this language model does not support")
        self.language_model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": self._checkpoint_contexts})

    def _reader(self, device: torch.device) -> PreTrainedModel:
        if not self._frozen:
            return self.language_model
        if self._frozen[0].device != device:
            self._frozen[0].to(device)
        return self._frozen[0]

    def _adapter_layers(self) -> list[BaseTunerLayer]:
        return [layer for layer in self.model.modules() if isinstance(layer, BaseTunerLayer)] if isinstance(self.model, PeftModel) else []

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        with _adapters_disabled(self._adapter_layers(), True):
            yield

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        layers = self._adapter_layers()
        disabled = bool(layers) and layers[0]._disable_adapters
        return nullcontext(), _adapters_disabled(layers, disabled)

    def _run(self, model: PreTrainedModel, embeddings: Tensor, lengths: Sequence[int], *, causal: bool) -> Tensor:
        trunk = model.base_model
        if self.attention == "packed":
            packing = Packing.of(lengths, causal=causal, device=embeddings.device)
            packed: Tensor = trunk(inputs_embeds=embeddings[None], position_ids=packing.positions, packing=packing, use_cache=False).last_hidden_state
            return packed[0]
        texts = torch.split(embeddings, list(lengths))
        padded = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
        mask = torch.arange(padded.shape[1], device=embeddings.device)[None] < torch.tensor(lengths, device=embeddings.device)[:, None]
        with _causality(model, causal):
            states: Tensor = trunk(inputs_embeds=padded, attention_mask=mask.long(), use_cache=False).last_hidden_state
        return states[mask]

    def _adopt(self, attention: Attention) -> None:
        """Finds a way of running the model that is bidirectional and keeps texts apart, and refuses a model that has none."""
        ways: list[tuple[Literal["packed", "padded"], str]] = [("packed", PACKED_ATTENTION), ("padded", "sdpa"), ("padded", "eager")]
        reasons = []
        for way, implementation in ways:
            if attention not in ("auto", way):
                continue
            try:
                self.language_model.set_attn_implementation(implementation)
                self.attention = way
                probe(self._forward_for_probe, self.embed, name=type(self.language_model).__name__, device=self.language_model.device)
            except (BackboneError, TypeError, ValueError, RuntimeError, NotImplementedError, IndexError, AttributeError) as error:
                reasons.append(f"{way} {implementation}: {' '.join(str(error).split())[:160]}")
            else:
                return
        raise BackboneError(f"{type(self.language_model).__name__} cannot be made bidirectional ({'; '.join(reasons)})")

    def _forward_for_probe(self, embeddings: Tensor, lengths: Sequence[int], causal: bool) -> Tensor:
        return self._run(self.language_model, embeddings, lengths, causal=causal)


@contextmanager
def _adapters_disabled(layers: Sequence[BaseTunerLayer], disabled: bool) -> Iterator[None]:
    before = [layer._disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = disabled
    try:
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            layer._disable_adapters = state


@contextmanager
def _causality(model: PreTrainedModel, causal: bool) -> Iterator[None]:
    """Sets a padded model causal or bidirectional; some classes look at the configuration, some at their own attribute."""
    holders: list[Any] = [model.config, *(module for module in model.modules() if hasattr(module, "is_causal"))]
    before = [getattr(holder, "is_causal", True) for holder in holders]
    for holder in holders:
        holder.is_causal = causal
    try:
        yield
    finally:
        for holder, state in zip(holders, before, strict=True):
            holder.is_causal = state


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
