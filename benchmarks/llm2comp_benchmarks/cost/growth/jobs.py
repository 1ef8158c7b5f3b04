"""What `run` measures in processes of their own: encoding more texts, longer ones, more memory tokens, and a stream."""

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm2comp import keep_freed_memory
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.memory import reset_peak
from llm2comp_benchmarks.cost.models import PARTS
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["draw_texts", "encode_stream", "one_token_words", "open_encoder"]

_SPREAD = 0.02  # of memory tokens that start at random
_FEWEST_WORDS = 100
_WORD_STARTS = ("Ġ", "▁")


def one_token_words(tokenizer: Any) -> list[str]:
    """Words in lower-case letters that are one token wherever they stand; a text of n of them has n tokens.

    Raises:
        SettingsError: The tokenizer has fewer than 100.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    without_space = set(tokens)
    words = [
        token[1:]
        for token in tokens
        if token[:1] in _WORD_STARTS and token[1:].isascii() and token[1:].isalpha() and token[1:].islower()
    ]
    chosen = [word for word in words if word in without_space]
    if len(chosen) < _FEWEST_WORDS:
        raise SettingsError(
            f"the tokenizer has {len(chosen)} words that are one token, expected at least {_FEWEST_WORDS}; measure "
            "another model"
        )
    return chosen


def draw_texts(words: Sequence[str], count: int, tokens: int, seed: int) -> list[str]:
    """`count` texts of `tokens` words each, drawn at random; the same for the same seed."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=tokens)) for _ in range(count)]


def open_encoder(folder: str, precision: str, seed: int = 0) -> tuple[dict[str, Any], Mapping[str, Job]]:
    """Facts about the model, and the jobs `encode` and `write_stream`.

    Args:
        folder: A folder that `models.prepare` filled.
        precision: As `llm2comp.load` takes it.
        seed: Of texts and of memory tokens.
    """
    import llm2comp

    model = llm2comp.load(str(Path(folder) / PARTS["ours"]), device="cpu", dtype=precision)
    encoder = model.encoder
    model_k = encoder.memory_tokens
    words = one_token_words(encoder.tokenizer)
    texts: dict[tuple[int, int], list[str]] = {}

    def encode(count: int, tokens: int, memory_tokens: int | None = None) -> dict[str, Any]:
        """Encodes `count` texts of `tokens` tokens, the beginning among them, each followed by the memory tokens.

        Args:
            count: Number of texts.
            tokens: Of each text.
            memory_tokens: Their number k; None: the model's.
        """
        k = memory_tokens or model_k
        if k != encoder.memory_tokens:
            start = torch.randn(k, encoder.backbone.hidden_size, generator=torch.Generator().manual_seed(seed))
            encoder.memory = nn.Parameter(_SPREAD * start.to(encoder.memory.dtype))
        encoder.max_seq_length = tokens + k
        if (count, tokens) not in texts:
            texts[count, tokens] = draw_texts(words, count, tokens - 1, seed)
        begin = time.perf_counter()
        model.encode(texts[count, tokens], show_progress_bar=False)
        return {"seconds": time.perf_counter() - begin}

    def write_stream(file: str, count: int, tokens: int) -> dict[str, Any]:
        """Writes a corpus of `count` texts; each has `tokens` tokens and, behind them, its number."""
        with Path(file).open("w", encoding="utf-8") as target:
            for number, text in enumerate(draw_texts(words, count, tokens - 1, seed)):
                target.write(json.dumps({"_id": str(number), "text": f"{text} {number}"}) + "\n")
        return {}

    facts = {
        "loaded_bytes": reset_peak(),
        "memory_tokens": model_k,
        "dtype": str(next(encoder.backbone.parameters()).dtype).removeprefix("torch."),
    }
    return facts, {"encode": encode, "write_stream": write_stream}


def encode_stream(folder: str, corpus: str, output: str, precision: str) -> None:
    """Encodes a corpus block by block, as `llm2comp encode` does; the parent process watches the memory."""
    import llm2comp
    from llm2comp_indexes import encode_shard

    encode_shard(
        [corpus], output, model=llm2comp.load(str(Path(folder) / PARTS["ours"]), device="cpu", dtype=precision)
    )


if __name__ == "__main__":
    keep_freed_memory()
    if sys.argv[1] == "encode":
        serve(lambda: open_encoder(**json.loads(sys.argv[2])))
    else:
        encode_stream(**json.loads(sys.argv[2]))
