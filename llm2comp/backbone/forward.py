"""Forward passes of a language model over a batch of texts: packed, or padded where its classes cannot be packed.

Both take and return packed states, (tokens, hidden), the texts end to end. Which of them a model gets is tried at load.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from llm2comp.backbone.attention import PACKED_ATTENTION, Packing
from llm2comp.backbone.hardware import multiplies_tiles
from llm2comp.backbone.probe import PROBE_TEXTS, probe
from llm2comp.errors import BackboneError, SettingsError, one_line

__all__ = [
    "NO_WINDOW",
    "WINDOWS",
    "AttentionLayout",
    "choose_layout",
    "decoder",
    "is_stateless",
    "rows_of_padding",
    "run_packed",
    "run_padded",
]

WINDOWS = ("sliding_window", "attention_chunk_size")
"""Settings of a configuration that keep a token from seeing distant ones."""

NO_WINDOW = 2**30
"""A window longer than any text."""

_LEAST_STEP = 16
"""Padded passes have a multiple of this many rows."""

_SIZES, _SIZES_OF_TILES = 64, 16
"""Numbers of rows up to a power of two that are multiples of the step; the second for CPUs with AMX."""

AttentionLayout = Literal["packed", "padded"]
"""How texts share a forward pass."""

_LAYOUTS: tuple[tuple[AttentionLayout, str], ...] = (
    ("packed", PACKED_ATTENTION),
    ("padded", "sdpa"),
    ("padded", "eager"),
)


def decoder(model: PreTrainedModel) -> nn.Module:
    """The language model without its head; its last hidden states come after the final norm."""
    inner: nn.Module = model.base_model
    return getattr(model, "model", model) if inner is model else inner


def run_packed(model: PreTrainedModel, embeddings: Tensor, packing: Packing) -> Tensor:
    """Final hidden states of packed texts, (tokens, hidden), from their input embeddings, (tokens, hidden).

    The packing's padding is added before the pass and removed after it.
    """
    padded = functional.pad(embeddings, (0, 0, 0, packing.padding)) if packing.padding else embeddings
    states: Tensor = decoder(model)(
        inputs_embeds=padded[None], position_ids=packing.positions, packing=packing, use_cache=False
    ).last_hidden_state
    return states[0, : len(embeddings)]


def rows_of_padding(embeddings: Tensor) -> int:
    """Rows to add to a packed pass so that passes have few different numbers of rows; at most 15, or a small share.

    On CPUs oneDNN compiles code for every new shape of a bfloat16 product. That takes half a millisecond, and up to 30
    for AMX: longer than a small product itself. For float32, and on GPUs, no rows are added.
    """
    device, rows = embeddings.device.type, len(embeddings)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else embeddings.dtype
    step = max(_LEAST_STEP, 2 ** rows.bit_length() // (_SIZES_OF_TILES if multiplies_tiles() else _SIZES))
    return -rows % step if device == "cpu" and dtype == torch.bfloat16 else 0


def run_padded(model: PreTrainedModel, embeddings: Tensor, lengths: Sequence[int], *, causal: bool) -> Tensor:
    """Final hidden states as of `run_packed`; the texts are padded on the right for the pass.

    The model's classes are switched for the pass, so only one thread may run it at a time.
    """
    padded = nn.utils.rnn.pad_sequence(list(embeddings.split(list(lengths))), batch_first=True)
    mask = (
        torch.arange(padded.shape[1], device=embeddings.device)[None]
        < torch.tensor(lengths, device=embeddings.device)[:, None]
    )
    with _causality(model, causal):
        states: Tensor = decoder(model)(
            inputs_embeds=padded, attention_mask=mask.long(), use_cache=False
        ).last_hidden_state
    return states[mask]


@torch.no_grad()
def choose_layout(model: PreTrainedModel, attention: Literal["auto", "packed", "padded"] = "auto") -> AttentionLayout:
    """The first layout that the probe accepts for this model.

    The model is left with the attention implementation of that layout. Its dropout is turned off for good, so that
    teacher and reader are exact in training; adapters added later keep theirs.

    Raises:
        BackboneError: If no layout does, naming the model and what each attempt gave.
        SettingsError: If `attention` is none of the three.
    """
    if attention not in ("auto", "packed", "padded"):
        raise SettingsError(f"attention is {attention!r}; give auto, packed or padded")
    name, device, embed = type(model).__name__, model.device, model.get_input_embeddings()
    reasons = []
    try:
        model.set_attn_implementation("eager")
        texts = [torch.tensor([text], device=device) for text in PROBE_TEXTS]
        expected = [decoder(model)(inputs_embeds=embed(text), use_cache=False).last_hidden_state[0] for text in texts]
    except Exception as error:
        raise BackboneError(
            f"{name} cannot be made bidirectional, for it does not turn embeddings into hidden states "
            f"({one_line(error, limit=160)})"
        ) from error
    _turn_dropout_off(model)
    for layout, implementation in _LAYOUTS:
        if attention not in ("auto", layout):
            continue

        def forward(
            embeddings: Tensor, lengths: Sequence[int], causal: bool, layout: AttentionLayout = layout
        ) -> Tensor:
            if layout == "packed":
                return run_packed(model, embeddings, Packing.of(lengths, causal=causal, device=device))
            return run_padded(model, embeddings, lengths, causal=causal)

        try:
            model.set_attn_implementation(implementation)
            probe(forward, embed, expected, name=name, device=device)
        except Exception as error:  # whatever a foreign class raises on arguments it does not expect
            reasons.append(f"{layout}: {one_line(error, limit=160)}")
        else:
            return layout
    raise BackboneError(
        f"{name} cannot be made bidirectional ({'; '.join(dict.fromkeys(reasons))}): choose another language model"
    )


def is_stateless(model: PreTrainedModel) -> bool:
    """Whether packed passes leave the model as it is, so that several threads may run them at once.

    Dynamic and long rotary embeddings keep the frequencies of the last pass in the model; of classes other than
    transformers' own it is not known.
    """
    kinds = [str(getattr(module, "rope_type", "")) for module in model.modules()]  # a name, or names by kind of layer
    known = type(model).__module__.startswith("transformers.")
    return known and not any("dynamic" in kind or "longrope" in kind for kind in kinds)


def _turn_dropout_off(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    for holder in (model.config, *model.modules()):
        for name, value in vars(holder).items():
            if isinstance(value, float) and ("drop" in name or name in ("jitter_noise", "input_jitter_noise")):
                setattr(holder, name, 0.0)


@contextmanager
def _causality(model: PreTrainedModel, causal: bool) -> Iterator[None]:
    """Makes a padded model causal or bidirectional for one pass.

    Some classes read the configuration, some their own attribute. A bidirectional pass has no sliding window and no
    chunks, because memory tokens must see the beginning of the text.
    """
    # the layers of a shortened model have the whole model's configuration (`first_layers`)
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    switches: list[tuple[Any, str, Any]] = [(config, "is_causal", causal) for config in configs.values()]
    switches += [(module, "is_causal", causal) for module in model.modules() if hasattr(module, "is_causal")]
    if not causal:
        switches += [
            (config, window, NO_WINDOW)
            for config in configs.values()
            for window in WINDOWS
            if getattr(config, window, None) is not None
        ]
    before = [getattr(holder, name, None) for holder, name, _ in switches]
    for holder, name, value in switches:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for (holder, name, _), value in zip(switches, before, strict=True):
            if value is None:
                delattr(holder, name)
            else:
                setattr(holder, name, value)
