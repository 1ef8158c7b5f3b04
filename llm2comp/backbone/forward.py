"""Forward passes of a language model over a batch of texts: packed, or padded where its classes cannot be packed.

Both take and give packed states, (tokens, hidden), the texts end to end; which of them a model gets is found by trying.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from llm2comp.backbone.attention import PACKED_ATTENTION, Packing
from llm2comp.backbone.probe import PROBE_TEXTS, probe
from llm2comp.errors import BackboneError, SettingsError, one_line

__all__ = [
    "NO_WINDOW",
    "WINDOWS",
    "AttentionLayout",
    "choose_layout",
    "rows_of_padding",
    "run_packed",
    "run_padded",
    "decoder",
]

WINDOWS = ("sliding_window", "attention_chunk_size")
"""Settings of a configuration that keep a token from seeing distant ones."""

NO_WINDOW = 2**30
"""A window that holds any text."""

_LEAST_STEP = 16
"""Rows that padded passes differ by at least."""

AttentionLayout = Literal["packed", "padded"]
"""How texts share a forward pass."""

_LAYOUTS: tuple[tuple[AttentionLayout, str], ...] = (
    ("packed", PACKED_ATTENTION),
    ("padded", "sdpa"),
    ("padded", "eager"),
)


def decoder(model: PreTrainedModel) -> nn.Module:
    """The language model without its head, whose last hidden states come after the final norm."""
    inner: nn.Module = model.base_model
    return getattr(model, "model", model) if inner is model else inner


def run_packed(model: PreTrainedModel, embeddings: Tensor, packing: Packing) -> Tensor:
    """Final hidden states of packed texts, (tokens, hidden), from their input embeddings, (tokens, hidden); the packing's padding is added and taken off."""
    given = functional.pad(embeddings, (0, 0, 0, packing.padding)) if packing.padding else embeddings
    states: Tensor = decoder(model)(
        inputs_embeds=given[None], position_ids=packing.positions, packing=packing, use_cache=False
    ).last_hidden_state
    return states[0, : len(embeddings)]


def rows_of_padding(embeddings: Tensor) -> int:
    """Rows to add to a packed pass, at most an eighth, so that only eight numbers of rows occur between a number and its double.

    On CPUs oneDNN prepares code for every new shape of a bfloat16 product, which takes longer than the product; in
    float32, and on GPUs, nothing is prepared, and nothing added.
    """
    device, rows = embeddings.device.type, len(embeddings)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else embeddings.dtype
    step = max(_LEAST_STEP, 2 ** (rows.bit_length() - 4))
    return -rows % step if device == "cpu" and dtype == torch.bfloat16 else 0


def run_padded(model: PreTrainedModel, embeddings: Tensor, lengths: Sequence[int], *, causal: bool) -> Tensor:
    """As `run_packed`, the texts padded on the right in between. The model's classes are switched meanwhile: one pass at a time."""
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
def choose_layout(model: PreTrainedModel, wanted: Literal["auto", "packed", "padded"] = "auto") -> AttentionLayout:
    """Leaves the model with the attention that reads both ways, keeps texts apart and, causal, gives what the model gives by itself.

    Its dropout is turned off for good, so that teacher and reader are exact in training; adapters that come later keep
    theirs.

    Raises:
        BackboneError: Naming the model, if there is none, and what each try came to.
        SettingsError: If what is wanted is none of the three.
    """
    if wanted not in ("auto", "packed", "padded"):
        raise SettingsError(f"attention is {wanted!r}; give auto, packed or padded")
    name, device, embed = type(model).__name__, model.device, model.get_input_embeddings()
    reasons = []
    try:
        model.set_attn_implementation("eager")
        texts = [torch.tensor([text], device=device) for text in PROBE_TEXTS]
        own = [decoder(model)(inputs_embeds=embed(text), use_cache=False).last_hidden_state[0] for text in texts]
    except Exception as error:
        raise BackboneError(
            f"{name} cannot be made bidirectional, for it does not turn embeddings into hidden states "
            f"({one_line(error, limit=160)})"
        ) from error
    _turn_dropout_off(model)
    for layout, implementation in _LAYOUTS:
        if wanted not in ("auto", layout):
            continue

        def forward(
            embeddings: Tensor, lengths: Sequence[int], causal: bool, layout: AttentionLayout = layout
        ) -> Tensor:
            if layout == "packed":
                return run_packed(model, embeddings, Packing.of(lengths, causal=causal, device=device))
            return run_padded(model, embeddings, lengths, causal=causal)

        try:
            model.set_attn_implementation(implementation)
            probe(forward, embed, own, name=name, device=device)
        except Exception as error:  # whatever a foreign class does with arguments it doesn't expect
            reasons.append(f"{layout}: {one_line(error, limit=160)}")
        else:
            return layout
    raise BackboneError(
        f"{name} cannot be made bidirectional ({'; '.join(dict.fromkeys(reasons))}): choose another language model"
    )


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
    """Makes a padded model causal or bidirectional: some classes look at the configuration, some at their own attribute.

    A bidirectional pass has no sliding window and no chunks, for memory tokens have to see the beginning of the text.
    """
    config = model.config
    switches: list[tuple[Any, str, Any]] = [(config, "is_causal", causal)]
    switches += [(module, "is_causal", causal) for module in model.modules() if hasattr(module, "is_causal")]
    if not causal:
        switches += [(config, reach, NO_WINDOW) for reach in WINDOWS if getattr(config, reach, None) is not None]
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
