"""What encoding is measured on: texts drawn from corpora, and a model with a plain sentence-transformers export of the same weights."""

import json
import random
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from llm2comp.errors import SettingsError

__all__ = ["PARTS", "SHAPES", "Shape", "count_parameters", "draw", "prepare"]

_MEMORY_TOKENS = 8
_MAX_LENGTH = 512


class Shape(NamedTuple):
    """A Llama's shape, without its vocabulary."""

    hidden: int
    layers: int
    intermediate: int

    @classmethod
    def parse(cls, name: str) -> "Shape":
        """A shape by its name, or written HIDDENxLAYERSxINTERMEDIATE.

        Raises:
            SettingsError: It is neither, or no number of heads fits.
        """
        if name in SHAPES:
            return SHAPES[name]
        parts = name.split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
            raise SettingsError(
                f"shape is {name!r}; give {', '.join(SHAPES)} or HIDDENxLAYERSxINTERMEDIATE, such as 768x12x2048"
            )
        shape = cls(*map(int, parts))
        if shape.hidden % 2:
            raise SettingsError(
                f"shape is {name!r}: hidden {shape.hidden} must be even, for rotary positions turn pairs of dimensions"
            )
        return shape

    @property
    def heads(self) -> int:
        """The fewest heads of at most 64 dimensions, of 128 from a width of 1,024 on, an even number of them."""
        most = 64 if self.hidden < _WIDE else 128
        return next(
            heads
            for heads in range(1, self.hidden + 1)
            if self.hidden % (2 * heads) == 0 and self.hidden // heads <= most
        )


_WIDE = 1024
SHAPES = {
    "tiny": Shape(256, 4, 768),
    "15m": Shape(288, 6, 768),
    "85m": Shape(768, 12, 2048),
    "0.6b": Shape(1024, 28, 3072),
    "1.5b": Shape(1536, 28, 8960),
    "7b": Shape(4096, 32, 11_008),
}
"""By name: the bundled model's, two of 15 and 85 million parameters beside a vocabulary's, and those of Qwen3-0.6B, Qwen2.5-1.5B (all heads their
own keys) and Llama-2-7B."""

PARTS = {"ours": "llm2comp", "plain": "plain", "backbone": "backbone", "texts": "texts.json"}
"""Names within the folder `prepare` fills: the model, its plain export, the bare language model (of a shape only), and the texts."""


def draw(file: str, corpora: Sequence[str], limit: int, seed: int) -> dict[str, Any]:
    """Writes texts drawn from corpora at random, each document once (all if there are fewer), as a JSON list; says how many."""
    from llm2comp.corpus.read import read_corpus

    documents = [document.content for document in chain.from_iterable(map(read_corpus, corpora)) if document.content]
    texts = random.Random(seed).sample(documents, min(limit, len(documents)))
    if not texts:
        raise SettingsError(f"no texts in {', '.join(corpora)}")
    Path(file).write_text(json.dumps(texts), encoding="utf-8")
    return {"texts": len(texts)}


def prepare(
    folder: str,
    texts: str | None = None,
    model: str | None = None,
    shape: str | None = None,
    *,
    count: int | None = None,
    vocabulary: int | None = None,
    seed: int = 0,
    plain: bool = True,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Fills a folder (see `PARTS`) and says what is in it.

    Args:
        folder: A new one.
        texts: File of `draw`; None: only the model is wanted.
        model: Name or folder of a model; None is the bundled one.
        shape: Random weights of this shape instead, with the bundled model's tokenizer.
        count: Of the texts, the first so many; None: all.
        vocabulary: Rows of the embeddings of random weights; None: as many as the tokenizer has.
        seed: Of random weights.
        plain: Whether to write the plain export, too.
        dtype: Precision that weights are written in, for all systems.
    """
    target = Path(folder)
    target.mkdir(parents=True)
    loaded = _open(target, model, shape, vocabulary, seed, dtype)
    loaded.save(target / PARTS["ours"])
    if plain:
        loaded.export(target / PARTS["plain"], dtype=dtype)
    facts = {"model": {"fingerprint": None if shape else loaded.fingerprint, **_described(loaded)}}
    if texts is None:
        return facts
    chosen = json.loads(Path(texts).read_text(encoding="utf-8"))[:count]
    (target / PARTS["texts"]).write_text(json.dumps(chosen), encoding="utf-8")
    encoder = loaded.encoder
    lengths = [len(tokens) + encoder.memory_tokens for tokens in encoder.token_ids(chosen)]
    return {
        **facts,
        "texts": {
            "texts": len(chosen),
            "tokens": sum(lengths),
            "truncated": encoder.pop_truncated(),
            "tokens_of_a_text": {
                "least": min(lengths),
                "median": median(lengths),
                "mean": round(mean(lengths), 1),
                "most": max(lengths),
            },
        },
    }


def _open(target: Path, model: str | None, shape: str | None, vocabulary: int | None, seed: int, dtype: str) -> Any:
    import llm2comp

    bundled = llm2comp.load(model, dtype=dtype, device="cpu")
    if shape is None:
        return bundled
    _write_random(target / PARTS["backbone"], Shape.parse(shape), bundled.encoder.tokenizer, vocabulary, seed, dtype)
    return llm2comp.LLM2Comp.from_backbone(
        target / PARTS["backbone"], _MEMORY_TOKENS, adapter=None, max_length=_MAX_LENGTH, dtype=dtype, device="cpu"
    )


def _write_random(folder: Path, shape: Shape, tokenizer: Any, vocabulary: int | None, seed: int, dtype: str) -> None:
    """A Llama of random weights and the tokenizer, in files that older transformers read, too."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=2 * _MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    plain.save_pretrained(folder)
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }  # older defaults name a third input
    _rewrite(folder / "tokenizer_config.json", lambda settings: settings | names)
    _rewrite(folder / "tokenizer.json", _with_older_merges)


def _rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file.write_text(
        json.dumps(change(json.loads(file.read_text(encoding="utf-8"))), ensure_ascii=False), encoding="utf-8"
    )


def _with_older_merges(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Merges as tokenizers before 0.20 write them: two tokens with a space between, which no token of a byte-level vocabulary holds."""
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"].get("merges", [])]
    return {**tokenizer, "model": {**tokenizer["model"], "merges": merges}}


def _described(model: Any) -> dict[str, Any]:
    language_model = model.encoder.backbone.language_model
    config = language_model.config
    return {
        "class": type(language_model).__name__,
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "intermediate": config.intermediate_size,
        "vocabulary": model.encoder.backbone.vocabulary_size,
        "memory_tokens": model.memory_tokens,
        "max_length": model.max_seq_length,
        "multiplied_parameters": count_parameters(model.encoder.backbone),
    }


def count_parameters(backbone: Any) -> int:
    """Parameters that a token is multiplied with in a forward pass: all but embeddings and head; an adapter counts as merged."""
    from llm2comp.backbone.forward import decoder

    language_model = backbone.language_model
    embeddings = {id(parameter) for parameter in language_model.get_input_embeddings().parameters()}
    named = decoder(language_model).named_parameters()
    return sum(
        parameter.numel() for name, parameter in named if id(parameter) not in embeddings and ".lora_" not in name
    )


_JOBS: dict[str, Callable[..., dict[str, Any]]] = {"draw": draw, "prepare": prepare}

if __name__ == "__main__":
    print(json.dumps(_JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))  # noqa: T201  # the answer to the parent process
