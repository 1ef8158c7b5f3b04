"""An encoder with fewer tokens: those that a corpus uses most, or those that a file names."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from llm2comp.backbone.vocabulary import byte_tokens, choose_tokens
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.settings import VocabularySettings
from llm2comp.training.settings_file import read_text_file
from llm2comp.training.sources import training_documents

__all__ = ["trim_vocabulary"]

_TEXTS_AT_ONCE = 256


def trim_vocabulary(model: LLM2Comp, settings: VocabularySettings) -> None:
    """Keeps some tokens of a model's tokenizer and embeddings; the others are encoded in pieces, down to bytes.

    A text whose tokens are all kept has the same vector as before. The weights are saved with the model from then on,
    beside the ids that the tokens had.

    Args:
        model: Changed in place.
        settings: The tokens.

    Raises:
        BackboneError: If the tokenizer is not byte-pair encoding with bytes to fall back on.
        SettingsError: If the limit leaves no room for bytes and special tokens, or a file is missing, lacks bytes or
            names a token that the model does not have.
        CorpusError: If a corpus cannot be read.
    """
    encoder = model.encoder
    byte_tokens(encoder.tokenizer)  # before any corpus is read
    if settings.file is None:
        texts = (document.content for source in settings.corpora for document in training_documents(source))
        ids: Iterable[int] = _by_frequency(encoder, texts)
    else:
        ids = _read_tokens(encoder, Path(settings.file))
    encoder.trim_vocabulary(choose_tokens(encoder.tokenizer, ids, settings.tokens, needed=_needed(encoder)))
    model.changed()


def _by_frequency(encoder: MemoryEncoder, texts: Iterable[str]) -> list[int]:
    """Ids of the tokens of the texts, the most frequent first, of equally frequent ones the lower id first."""
    counts: Counter[int] = Counter()
    stream = iter(texts)
    while batch := list(islice(stream, _TEXTS_AT_ONCE)):
        rows = encoder.tokenizer(
            batch, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )["input_ids"]
        for ids in rows:
            counts.update(ids)
    return sorted(counts, key=lambda number: (-counts[number], number))


def _needed(encoder: MemoryEncoder) -> set[int]:
    """Ids that the language model's configuration names, and the one that texts begin with."""
    config = encoder.backbone.language_model.config
    named = [getattr(config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    numbers = [number for entry in named for number in (entry if isinstance(entry, list) else [entry])]
    known = set(encoder.tokenizer.get_vocab().values())
    return {encoder.beginning, *(number for number in numbers if number in known)}


def _read_tokens(encoder: MemoryEncoder, path: Path) -> list[int]:
    """Ids of the tokens in a file.

    Raises:
        SettingsError: If there is no such file, or it lacks bytes or names an unknown token.
    """
    if not path.is_file():
        raise SettingsError(f"no vocabulary file {path}")
    vocabulary = encoder.tokenizer.get_vocab()
    tokens = read_text_file(path).removesuffix("\n").split("\n")
    for line, token in enumerate(tokens, start=1):
        if token not in vocabulary:
            raise SettingsError(f"{path}:{line}: the tokenizer has no token {token!r}; give tokens of its vocabulary")
    if missing := sorted(set(byte_tokens(encoder.tokenizer)) - set(tokens)):
        raise SettingsError(
            f"{path} lacks {len(missing)} of the tokens of single bytes, such as {missing[0]!r}, without which a text "
            "may not be encoded: add a line for each"
        )
    return [vocabulary[token] for token in tokens]
