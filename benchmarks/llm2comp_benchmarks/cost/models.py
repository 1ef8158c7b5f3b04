"""The models and texts that benchmarks measure: a model with a plain export of the same weights, texts from corpora.

`python -m llm2comp_benchmarks.cost.models draw|prepare KEYWORDS` calls `draw` or `prepare` in a process of its own.
"""

import json
import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean, median
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.processes import answer_once, module_command, run_process
from llm2comp_benchmarks.cost.shapes import Shape, random_llama
from llm2comp_benchmarks.cost.text_kinds import text_name, texts_of_kind

__all__ = ["PARTS", "draw", "model_facts", "prepare", "run_model_job"]

_MEMORY_TOKENS = 8
_MAX_LENGTH = 512

PARTS = {"ours": "llm2comp", "plain": "plain", "backbone": "backbone", "texts": "texts.json"}
"""Names within the folder that `prepare` fills: our model, its plain sentence-transformers export, the bare language
model (where random weights are measured), and the texts; other kinds of texts have files such as `short-texts.json`."""


def run_model_job(title: str, job: str, threads: int, **arguments: Any) -> dict[str, Any]:
    """The result of `draw` or `prepare`, called in a process of its own; `title` names it in an error."""
    return run_process(title, module_command("llm2comp_benchmarks.cost.models", job, **arguments), threads)


def draw(file: str, corpora: Sequence[str], limit: int, seed: int) -> dict[str, Any]:
    """Writes texts drawn at random from corpora into a file as a JSON list; returns their number as `texts`.

    Each document is drawn at most once; all are taken if there are no more than `limit`.
    """
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
    kinds: Sequence[str] = ("document",),
    vocabulary: int | None = None,
    seed: int = 0,
    plain: bool = True,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Fills a folder (see `PARTS`) and returns facts about its `model` and its texts, by `text_name` of their kind.

    Args:
        folder: A new folder.
        texts: A file that `draw` wrote; None prepares a model without texts.
        model: Name or folder of a model; None is the bundled one.
        shape: Random weights of this shape instead, with the bundled model's tokenizer.
        count: How many of the texts, from the first on; None: all.
        kinds: Kinds of texts to make of them; see `text_kinds`.
        vocabulary: Rows of the embeddings of random weights; None: the size of the tokenizer.
        seed: Of random weights.
        plain: Whether to write the plain export too.
        dtype: Precision of the weights on disk, for all systems.
    """
    target = Path(folder)
    target.mkdir(parents=True)
    loaded = _load_or_make(target, model, shape, vocabulary, seed, dtype)
    loaded.save(target / PARTS["ours"])
    if plain:
        loaded.export(target / PARTS["plain"], dtype=dtype)
    facts = {"model": {"fingerprint": None if shape else loaded.fingerprint, **model_facts(loaded)}}
    if texts is None:
        return facts
    documents = json.loads(Path(texts).read_text(encoding="utf-8"))[:count]
    return facts | {text_name(kind): _write_texts(target, kind, documents, loaded.encoder, seed) for kind in kinds}


def _write_texts(folder: Path, kind: str, documents: list[str], encoder: Any, seed: int) -> dict[str, Any]:
    """Writes the texts of a kind and returns facts about them.

    Raises:
        SettingsError: The documents have no texts of this kind.
    """

    def count_tokens(texts: list[str]) -> list[int]:
        return [len(tokens) + encoder.memory_tokens for tokens in encoder.token_ids(texts)]

    texts = texts_of_kind(kind, documents, count_tokens, max_length=encoder.max_seq_length, seed=seed)
    encoder.pop_truncated()
    if not texts:
        raise SettingsError(f"the documents have no {kind} texts; give another corpus, or other kinds of texts")
    (folder / f"{text_name(kind)}.json").write_text(json.dumps(texts), encoding="utf-8")
    return _text_facts(encoder, texts)


def _text_facts(encoder: Any, texts: list[str]) -> dict[str, Any]:
    lengths = [len(tokens) + encoder.memory_tokens for tokens in encoder.token_ids(texts)]
    return {
        "texts": len(texts),
        "tokens": sum(lengths),
        "truncated": encoder.pop_truncated(),
        "tokens_of_a_text": {
            "least": min(lengths),
            "median": median(lengths),
            "mean": round(mean(lengths), 1),
            "most": max(lengths),
        },
    }


def _load_or_make(
    target: Path, model: str | None, shape: str | None, vocabulary: int | None, seed: int, dtype: str
) -> Any:
    import llm2comp

    bundled = llm2comp.load(model, dtype=dtype, device="cpu")
    if shape is None:
        return bundled
    _write_random(target / PARTS["backbone"], Shape.parse(shape), bundled.encoder.tokenizer, vocabulary, seed, dtype)
    return llm2comp.LLM2Comp.from_backbone(
        target / PARTS["backbone"], _MEMORY_TOKENS, adapter=None, max_length=_MAX_LENGTH, dtype=dtype, device="cpu"
    )


def _write_random(folder: Path, shape: Shape, tokenizer: Any, vocabulary: int | None, seed: int, dtype: str) -> None:
    """Writes a Llama of random weights and the tokenizer, in files that older releases of transformers can read."""
    import torch
    from transformers import PreTrainedTokenizerFast

    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = random_llama(
        shape,
        vocabulary or len(tokenizer),
        seed,
        max_position_embeddings=2 * _MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        **special,
    )
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    ).save_pretrained(folder)
    # older releases would add a third input
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    _rewrite(folder / "tokenizer_config.json", lambda settings: settings | names)
    _rewrite(folder / "tokenizer.json", _with_older_merges)


def _rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    changed = change(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(changed, ensure_ascii=False), encoding="utf-8")


def _with_older_merges(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer with merges as tokenizers before 0.20 write them: two tokens with a space between.

    No token of a byte-level vocabulary holds a space.
    """
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"].get("merges", [])]
    return {**tokenizer, "model": {**tokenizer["model"], "merges": merges}}


def model_facts(model: Any) -> dict[str, Any]:
    """Class, sizes and parameter count of an LLM2Comp model, as result files hold them."""
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
        "multiplied_parameters": _count_parameters(model.encoder.backbone),
    }


def _count_parameters(backbone: Any) -> int:
    """Number of parameters that a token is multiplied with in a forward pass: all but embeddings and head.

    An adapter counts as merged.
    """
    from llm2comp.backbone.forward import decoder

    language_model = backbone.language_model
    embeddings = {id(parameter) for parameter in language_model.get_input_embeddings().parameters()}
    named = decoder(language_model).named_parameters()
    return sum(
        parameter.numel() for name, parameter in named if id(parameter) not in embeddings and ".lora_" not in name
    )


if __name__ == "__main__":
    answer_once({"draw": draw, "prepare": prepare})
