"""Comparison of a plain model's vectors with those of the LLM2Comp model it was exported from."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from llm2comp.backbone.loading import quiet
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import one_line
from llm2comp.export.files import Vocabulary
from llm2comp.truncation import count_truncated

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

__all__ = ["Comparison", "Expected"]

_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "",
    " ",
    "  spaces before, after, and  two within  ",
    "lines\nof\r\ntext\tand a tab\n",
    "def f(x):\n    return x ** 2  # code",
    "tea 🍵, 👩‍👩‍👧‍👦, e\u0301 and \u00e9, ﬁ, Ⅷ, \u200b\ufeff",
    "a\x00b\x1b[31m\u2028c",
    "שלום עולם, مرحبا بالعالم, 你好，世界, Привет, नमस्ते",
    "UPPER lower 3.14159 100,000 https://example.org/?q=1&r=%20",
)
"""Texts that both models encode, besides special tokens and long texts."""


class Comparison(NamedTuple):
    """Differences between the vectors of a plain model and those of its original.

    Attributes:
        difference: Largest difference of a component, vectors scaled so that the original's have unit length; infinite
            if they could not be compared.
        cosine: Smallest cosine.
        attention: Attention implementation of transformers, such as `sdpa` or `eager`.
        problem: Why the vectors could not be compared; empty if they were.
    """

    difference: float
    cosine: float
    attention: str
    problem: str = ""


class Expected:
    """Texts, and their token ids and vectors by the original.

    Attributes:
        texts: All texts.
        short: Number of texts, from the first, that are well below the maximum length.
    """

    def __init__(self, model: "LLM2Comp", vocabulary: Vocabulary) -> None:
        encoder: MemoryEncoder = model.encoder
        room = encoder.max_seq_length - encoder.memory_tokens - 1
        specials = [*vocabulary.names, *encoder.tokenizer.all_special_tokens]
        too_long = " ".join(f"word{number}" for number in range(encoder.max_seq_length))
        longest = _longest_text(encoder, room)
        framed = [f"{token} begins and ends {token}" for token in specials[-4:]]
        self.texts = [*_TEXTS, " ".join(specials), "".join(specials), *framed, longest, longest + " x", too_long]
        self.short = len(self.texts) - 3
        prompt = model.prompts.get("query") or ""
        ends = vocabulary.ids
        self._document_ids = [[*ids, *ends] for ids in encoder.token_ids(self.texts)]
        self._query_ids = [[*ids, *ends] for ids in encoder.token_ids([prompt + text for text in self.texts])]
        with count_truncated():  # instead of a warning
            self._vectors = _vectors(model, self)

    def compare(self, folder: Path, device: Any) -> Comparison:
        """Loads the plain model on a device as its users will, encodes the texts, and compares tokens and vectors."""
        try:
            with quiet(), _without_advice():
                plain = SentenceTransformer(str(folder), device=str(device), local_files_only=True)
                if problem := self._tokenization_problem(plain):
                    return _incomparable(problem)
                vectors = _vectors(plain, self)
                transformer: Any = plain[0]
                attention: str = transformer.config._attn_implementation
        except Exception as error:  # whatever transformers and foreign tokenizers raise on what they do not expect
            return _incomparable(f"it does not load or encode ({one_line(error)})")
        if not np.isfinite(vectors).all():
            return _incomparable("it gives vectors that are not finite")
        scale = np.linalg.norm(self._vectors, axis=1, keepdims=True)
        difference = np.abs(vectors - self._vectors) / scale
        cosines = (vectors * self._vectors).sum(1) / (scale[:, 0] * np.linalg.norm(vectors, axis=1))
        return Comparison(float(difference.max()), float(cosines.min()), attention)

    def _tokenization_problem(self, plain: SentenceTransformer) -> str:
        """The first text that the plain model splits into other tokens; empty if there is none."""
        for prompt, expected_ids in (
            (plain.prompts.get("document"), self._document_ids),
            (plain.prompts.get("query"), self._query_ids),
        ):
            features = plain.preprocess(self.texts, prompt=prompt)
            rows = zip(self.texts, features["input_ids"], features["attention_mask"], expected_ids, strict=True)
            for text, padded, mask, expected in rows:
                if (ids := padded[mask.bool()].tolist()) != expected:
                    return f"it splits {text[:40]!r} into other tokens ({len(ids)} instead of {len(expected)})"
        return ""


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silences sentence-transformers' advice on loading a model, which is only checked here."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _incomparable(problem: str) -> Comparison:
    return Comparison(float("inf"), -1.0, "", problem)


def _longest_text(encoder: MemoryEncoder, room: int) -> str:
    """A text of `room` tokens, or a few less where a word is more than one token."""
    words = ["text", "word"] * (room // 2)
    while len(words) > 1 and len(encoder.token_ids([" ".join(words)])[0]) > room:
        words = words[: -max(1, len(words) // 8)]
    return " ".join(words)


def _vectors(model: Any, expected: Expected) -> NDArray[np.float32]:
    """Vectors of the texts as queries, then as documents, (2 · texts, dim).

    Short texts share a batch, long ones have batches of their own.
    """
    parts = []
    for encode in (model.encode_query, model.encode_document):
        for texts, batch_size in ((expected.texts[: expected.short], 32), (expected.texts[expected.short :], 1)):
            parts.append(
                torch.as_tensor(encode(texts, batch_size=batch_size, show_progress_bar=False)).float().cpu().numpy()
            )
    return np.concatenate(parts)
