"""Vocabularies trimmed to the tokens that some texts use: which tokens stay, the tokenizer, and the embeddings.

Byte-pair encoding applies merges in order. A kept token keeps the tokens that its merges pass through, so a text whose
tokens are all kept is tokenized as before. Bytes, special and added tokens always stay, so any other text is encoded in
smaller pieces, down to its bytes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm2comp.backbone.loading import Source, load_tokenizer, quiet
from llm2comp.errors import BackboneError, SettingsError

__all__ = ["byte_tokens", "choose_tokens", "trim_embeddings", "trim_tokenizer"]

_SPACE = "▁"
"""What stands for a space in tokenizers without byte-level characters; as bytes it would be three tokens."""
_NOT_IN_A_BACKEND = ("vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json", "special_tokens_map.json")
"""Files that older tokenizers are saved with, which repeat what is in tokenizer.json."""


def byte_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tokens of single bytes that a tokenizer has, to which every text can be broken down.

    Raises:
        BackboneError: If the tokenizer is not byte-pair encoding, or has no bytes to fall back on.
    """
    parts = _parts(tokenizer)
    vocabulary = parts["model"]["vocab"]
    if '"ByteLevel"' in json.dumps(parts["pre_tokenizer"]):  # alone or in a sequence
        return sorted(set(ByteLevel.alphabet()) & vocabulary.keys())
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if not parts["model"].get("byte_fallback") or not vocabulary.keys() >= set(names):
        raise BackboneError(
            f"the vocabulary of {type(tokenizer).__name__} cannot be trimmed: it has no tokens of single bytes for "
            "the other texts"
        )
    return names


def choose_tokens(
    tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], limit: int | None = None, *, needed: Iterable[int] = ()
) -> list[int]:
    """Ids of the tokens to keep, in rising order.

    Args:
        tokenizer: Byte-pair encoding with bytes to fall back on.
        ids: Tokens in order of importance; each comes with the tokens that its merges pass through.
        limit: Largest number of tokens, those that always stay included; None keeps all of `ids`.
        needed: Further tokens that always stay, such as the one that texts begin with.

    Raises:
        BackboneError: As `byte_tokens`.
        SettingsError: If the limit is below the number of tokens that always stay.
    """
    model = _parts(tokenizer)["model"]
    vocabulary: dict[str, int] = model["vocab"]
    kept = {vocabulary[token] for token in byte_tokens(tokenizer)} | set(needed) | set(tokenizer.added_tokens_decoder)
    kept |= {vocabulary[name] for name in (model.get("unk_token"), _SPACE) if name in vocabulary}
    if limit is not None and limit < len(kept):
        raise SettingsError(f"a vocabulary of {limit} tokens: {len(kept)} are bytes and special tokens; give more")
    names = {number: token for token, number in vocabulary.items()}
    ranks = {(left, right): rank for rank, (left, right) in enumerate(map(_pair, model["merges"]))}
    for number in ids:
        if number in kept or number not in names:
            continue
        added = {vocabulary[part] for part in _passed_through(names[number], ranks)} - kept | {number}
        if limit is not None and len(kept) + len(added) > limit:
            break
        kept |= added
    return sorted(kept)


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """The tokenizer with the kept tokens alone, numbered from 0 in the order given; merges of other tokens are dropped.

    Args:
        tokenizer: Byte-pair encoding with bytes to fall back on.
        kept: Ids in rising order, from `choose_tokens`.

    Raises:
        BackboneError: If it cannot be trimmed.
    """
    parts = _parts(tokenizer)
    new_ids = {old: new for new, old in enumerate(kept)}
    model = parts["model"]
    model["vocab"] = {token: new_ids[old] for token, old in model["vocab"].items() if old in new_ids}
    model["merges"] = [pair for pair in map(_pair, model["merges"]) if {*pair, "".join(pair)} <= model["vocab"].keys()]
    for token in parts["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    parts["post_processor"] = _renumbered(parts["post_processor"], new_ids)
    with TemporaryDirectory() as folder, quiet():
        tokenizer.save_pretrained(folder)
        for name in _NOT_IN_A_BACKEND:
            Path(folder, name).unlink(missing_ok=True)
        Path(folder, "tokenizer.json").write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
        settings = json.loads(Path(folder, "tokenizer_config.json").read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)
        Path(folder, "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        trimmed = load_tokenizer(Source(folder, None, folder))
    trimmed.name_or_path = tokenizer.name_or_path
    expected = {token: new_ids[old] for token, old in tokenizer.get_vocab().items() if old in new_ids}
    if trimmed.get_vocab() != expected:
        raise BackboneError(f"the vocabulary of {type(tokenizer).__name__} cannot be trimmed: its ids are in its code")
    return trimmed


def trim_embeddings(models: Iterable[PreTrainedModel], kept: Tensor) -> None:
    """Keeps these rows of the token embeddings and of the head, and renumbers the token ids of the configurations.

    Args:
        models: Language models of one vocabulary; they may share embeddings and heads.
        kept: Ids of the kept tokens, (tokens,).

    Raises:
        BackboneError: If there are other weights for each token.
    """
    models = list(models)
    for model in models:
        _check_layers_of_tokens(model)
    new_ids = {old: new for new, old in enumerate(kept.tolist())}
    layers = [layer for model in models for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    trimmed: list[tuple[Tensor, nn.Parameter]] = []
    for layer in {id(layer): layer for layer in layers if layer is not None}.values():
        _trim_layer(layer, kept, new_ids, trimmed)
    for model in models:
        settings = [model.config, model.config.get_text_config(decoder=True), getattr(model, "generation_config", None)]
        for config in {id(config): config for config in settings if config is not None}.values():
            _renumber_settings(config, new_ids)
        model.config.get_text_config(decoder=True).vocab_size = len(kept)
        for part in (model, model.base_model):
            if hasattr(part, "vocab_size"):
                part.vocab_size = len(kept)  # type: ignore[assignment]  # a number in every model


def _parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer's parts as in tokenizer.json.

    Raises:
        BackboneError: If it is not byte-pair encoding as this module knows it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    model = parts.get("model", {"type": "a tokenizer in Python"})
    kind = model.get("type")
    if kind == "BPE" and (
        model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    ):
        kind = "BPE with dropout, prefixes or suffixes"
    if kind != "BPE":
        raise BackboneError(
            f"the vocabulary of {type(tokenizer).__name__} cannot be trimmed: it is {kind}, and only BPE can be "
            "(GPT-2, Llama, SmolLM2, Qwen and the like)"
        )
    return parts


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _passed_through(token: str, ranks: dict[tuple[str, str], int]) -> set[str]:
    """Tokens that byte-pair encoding passes through on the way from the characters of a token to the token.

    Empty if it does not arrive there: such a token never stands in a text, or is looked up whole.
    """
    symbols, passed = list(token), set(token)
    while len(symbols) > 1:
        pairs = list(zip(symbols, symbols[1:], strict=False))
        best = min(range(len(pairs)), key=lambda place: (ranks.get(pairs[place], len(ranks)), place))
        if pairs[best] not in ranks:
            return set()
        symbols[best : best + 2] = ["".join(pairs[best])]
        passed.add(symbols[best])
    return passed


def _renumbered(processor: Any, new_ids: dict[int, int]) -> Any:
    """A post-processor with new ids: `"ids": [1]` in templates, `"sep": ["</s>", 2]` and `"cls"` in others."""
    if isinstance(processor, list):
        return [_renumbered(entry, new_ids) for entry in processor]
    if not isinstance(processor, dict):
        return processor
    content = {name: _renumbered(value, new_ids) for name, value in processor.items()}
    if isinstance(content.get("ids"), list):
        content["ids"] = [new_ids[number] for number in content["ids"]]
    for name in ("sep", "cls"):
        if isinstance(content.get(name), list):
            content[name] = [content[name][0], new_ids[content[name][1]]]
    return content


def _check_layers_of_tokens(model: PreTrainedModel) -> None:
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_plain = isinstance(embeddings, nn.Embedding) and (head is None or isinstance(head, nn.Linear))
    others = [
        name
        for name, weight in model.named_parameters()
        if is_plain
        and "embed" in name
        and len(weight) == embeddings.num_embeddings
        and not any(weight is known for layer in (embeddings, head) if layer for known in layer.parameters())
    ]
    if others or not is_plain:
        raise BackboneError(
            f"the vocabulary of {type(model).__name__} cannot be trimmed: "
            + (f"{others[0]} has a row per token too" if others else "its embeddings or head are not plain layers")
        )


def _trim_layer(layer: Any, kept: Tensor, new_ids: dict[int, int], trimmed: list[tuple[Tensor, nn.Parameter]]) -> None:
    """Keeps rows of an embedding or a head.

    Args:
        layer: An embedding or a linear layer.
        kept: Ids of the kept tokens, (tokens,).
        new_ids: New ids of the kept tokens.
        trimmed: Weights before and after of the layers trimmed so far; what layers share, they share afterwards.
    """
    for name, weight in list(layer.named_parameters(recurse=False)):
        rows = next((after for before, after in trimmed if before is weight), None)
        if rows is None:
            rows = nn.Parameter(weight.detach()[kept.to(weight.device)], requires_grad=weight.requires_grad)
            trimmed.append((weight, rows))
        setattr(layer, name, rows)
    if isinstance(layer, nn.Embedding):
        layer.num_embeddings = len(kept)
        layer.padding_idx = None if layer.padding_idx is None else new_ids.get(layer.padding_idx)
    else:
        layer.out_features = len(kept)


def _renumber_settings(config: Any, new_ids: dict[int, int]) -> None:
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new_ids.get(value))
        elif name.endswith("_token_id") and isinstance(value, list):
            setattr(config, name, [new_ids[number] for number in value if number in new_ids])
