"""Texts, models and recipes small enough to train in a second, without any download."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.model import LLM2Comp
from llm2comp.training.checkpoints import trained_weights
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings
from tests.paths import BACKBONE, ROOT

_WORDS = """
    the a river bridge stone old town water north mill boat fish snow field road tower clock bell horse market bread
    salt iron glass wool paper ink king queen child winter summer rain wind light night morning house roof door wall
    garden tree apple bird wolf fox letter song drum
""".split()  # noqa: SIM905


def text(number: int, words: int = 60) -> str:
    """A text of made-up sentences that depends on the number alone."""
    chance = random.Random(number)
    sentences = []
    while words > 0:
        length = min(words, chance.randint(6, 12))
        sentences.append(" ".join(chance.choices(_WORDS, k=length)).capitalize() + ".")
        words -= length
    return " ".join(sentences)


def write_corpus(path: Path, texts: Sequence[str]) -> Path:
    lines = (
        json.dumps({"id": f"d{number}", "title": f"Bridge {number}", "text": entry})
        for number, entry in enumerate(texts)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_pairs(path: Path, count: int, *, negatives: int = 0, start: int = 0) -> Path:
    """Writes pairs whose texts are all different."""
    rows: list[dict[str, Any]] = []
    for number in range(start, start + count):
        row: dict[str, Any] = {
            "query": f"{text(10 * number, 5)} {number}",
            "positive": f"{text(10 * number + 1, 12)} {number}",
        }
        if negatives:
            row["negative"] = [f"{text(10 * number + 2 + place, 12)} not {number}" for place in range(negatives)]
        rows.append(row)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


LORA = AdapterSettings(rank=4, alpha=8, dropout=0.0)
_STAGE: dict[str, Any] = {
    "steps": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "log_steps": 1,
    "precision": "float32",
}


def small_model(*, adapter: AdapterSettings | None = LORA, memory_tokens: int = 3, **options: Any) -> LLM2Comp:
    torch.manual_seed(0)
    return LLM2Comp.from_backbone(
        BACKBONE, memory_tokens, adapter=adapter, max_length=options.pop("max_length", 96), device="cpu", **options
    )


def compression(corpus: Path, **fields: Any) -> CompressionSettings:
    lengths = {"min_characters": 60, "max_tokens": 48, "margin": 4}
    return CompressionSettings(corpora=(str(corpus),), **{**_STAGE, **lengths, **fields})


def supervised(*pairs: Path, **fields: Any) -> ContrastiveSettings:
    return ContrastiveSettings(pairs=tuple(map(str, pairs)), **{**_STAGE, "heldout_rows": 0, **fields})


def unsupervised(corpus: Path, **fields: Any) -> ContrastiveSettings:
    return ContrastiveSettings(corpora=(str(corpus),), **{**_STAGE, "heldout_rows": 0, **fields})


def weights_of(model: LLM2Comp) -> dict[str, Tensor]:
    """A copy of the weights being trained."""
    return {name: weight.detach().clone() for name, weight in trained_weights(model).items()}


def write_recipe(folder: Path, **sections: Any) -> Path:
    """Writes a recipe of all stages on made-up texts: under two hundred updates of a model of 20,000 weights."""
    data = folder / "data"
    data.mkdir()
    write_corpus(
        data / "articles.jsonl",
        ["\n".join(text(1000 + 10 * number + part, 40) for part in range(4)) for number in range(40)],
    )
    write_corpus(data / "heldout.jsonl", [text(9000 + number, 60) for number in range(8)])
    stage = {
        "batch_size": 4,
        "learning_rate": 1e-3,
        "precision": "float32",
        "log_steps": 1,
        "save_steps": 3,
        "eval_steps": 5,
    }
    corpora = {"corpora": ["{data}/articles.jsonl"]}
    recipe: dict[str, Any] = {
        "name": "tiny",
        "about": "a test",
        "model": {"memory_tokens": 2, "max_length": 64, "adapter": {"rank": 2, "alpha": 4, "dropout": 0.1}},
        "pretrain": {
            **stage,
            **corpora,
            "heldout": "{data}/heldout.jsonl",
            "shape": {
                "vocabulary": 300,
                "hidden": 16,
                "layers": 2,
                "heads": 2,
                "intermediate": 32,
                "max_positions": 64,
            },
            "sequence_length": 32,
            "tokenizer_share": 1.0,
            "steps": 14,
        },
        "derive": {"articles": ["{data}/articles.jsonl"], "passage_words": [8, 20], "sentence_words": [4, 20]},
        "compression": {
            **stage,
            **corpora,
            "heldout": "{data}/heldout.jsonl",
            "min_characters": 60,
            "max_tokens": 48,
            "margin": 4,
            "steps": 11,
        },
        "unsupervised": {
            **stage,
            **corpora,
            "steps": 10,
            "adapter": "merge",
            "attention_dropout": 0.2,
            "heldout_rows": 8,
        },
        "supervised": {**stage, "pairs": ["{pairs}"], "steps": 13, "heldout_rows": 4, "micro_batch": 2},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**recipe, **sections}), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """Environment variables of a child process: one thread, offline, this package."""
    paths = [str(ROOT / part) for part in (".", "indexes", "benchmarks", "integrations")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
