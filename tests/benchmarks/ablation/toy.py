"""An ablation small enough for a test: a random language model, a few updates a stage, made-up sets to measure on."""

import json
from pathlib import Path
from typing import Any

from tests.training.tiny import BACKBONE, text, write_corpus, write_pairs

RECIPE = """
name: toy
about: a test
model: {{backbone: {backbone}, memory_tokens: 2, max_length: 60, adapter: {{rank: 2, alpha: 4, dropout: 0.0}}}}
compression:
  {{corpora: ["{{data}}/corpus.jsonl"], heldout: "{{data}}/heldout.jsonl", min_characters: 100, max_tokens: 50,
    steps: 3, batch_size: 4, learning_rate: 1.0e-2, log_steps: 1, eval_steps: 2, save_steps: 1}}
unsupervised:
  {{corpora: ["{{data}}/corpus.jsonl"], steps: 2, batch_size: 4, learning_rate: 1.0e-2, heldout_rows: 0,
    adapter: merge}}
supervised:
  {{pairs: ["{{data}}/pairs.jsonl"], steps: 3, batch_size: 4, learning_rate: 1.0e-2, heldout_rows: 0, adapter: merge}}
"""
PLAN: dict[str, Any] = {
    "name": "toy",
    "about": "a test",
    "recipe": "recipe.yaml",
    "suite": "suite.json",
    "pretexts": ["distillation", "mntp", "none"],
    "seeds": [0, 1],
    "curve": [1, 3],
    "baselines": ["mean", "prompteol"],
    "memory_tokens": [1, 2],
    "end_only": ["labelled"],
}
SUITE = {
    "name": "toy",
    "about": "a test",
    "tasks": [
        {"path": "similar.tsv", "kind": "sts"},
        {"path": "passages", "kind": "retrieval"},
        {"path": "labelled", "kind": "classification"},
    ],
}


def write_toy(folder: Path, **plan: Any) -> Path:
    """The plan of a toy ablation in a folder, its texts in `data` below it; returns the plan's path."""
    data = folder / "data"
    data.mkdir(parents=True)
    write_corpus(data / "corpus.jsonl", [text(number, 80) for number in range(12)])
    write_corpus(data / "heldout.jsonl", [text(900 + number, 80) for number in range(6)])
    write_pairs(data / "pairs.jsonl", 16)
    _write_sets(data / "eval")
    (folder / "recipe.yaml").write_text(RECIPE.format(backbone=BACKBONE))
    (folder / "suite.json").write_text(json.dumps(SUITE))
    (folder / "plan.yaml").write_text(json.dumps({**PLAN, **plan}))
    return folder / "plan.yaml"


def _write_sets(folder: Path) -> None:
    """Sentence pairs, a collection to search in, and labelled texts."""
    (folder / "passages" / "qrels").mkdir(parents=True)
    (folder / "labelled").mkdir()
    rows = [f"{text(number, 8)}\t{text(number + number % 3, 8)}\t{number % 6}" for number in range(18)]
    (folder / "similar.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
    write_corpus(folder / "passages" / "corpus.jsonl", [text(number, 30) for number in range(10)])
    queries = [{"_id": f"q{number}", "text": text(number, 6)} for number in range(10)]
    (folder / "passages" / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n")
    judged = [f"q{number}\td{number}\t1" for number in range(10)]
    (folder / "passages" / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    for name, first in (("train", 0), ("test", 50)):
        lines = [f"{text(first + number, 6)}\t{'odd' if number % 2 else 'even'}" for number in range(16)]
        (folder / "labelled" / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
