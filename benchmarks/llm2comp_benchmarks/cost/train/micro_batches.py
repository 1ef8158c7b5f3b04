"""Updates of stage 3 in one pass beside micro-batches (GradCache), which compute each text twice.

`python -m llm2comp_benchmarks.cost.train.micro_batches benchmarks/results/micro-batches.json BACKBONE` trains an
adapter on made-up pairs, by turns in one process, and compares the seconds of an update.
"""

import json
import logging
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from transformers import TrainerCallback

import llm2comp
from llm2comp import LLM2Comp
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.settings import ContrastiveSettings
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["compare"]

_BATCH, _UPDATES, _TURNS = 64, 3, 2
_WORDS = {"query": 5, "positive": 10, "negative": 10}
_VARIANTS = {"micro-batches": _BATCH, "one pass": None}
_logger = logging.getLogger(__name__)


class _Timer(TrainerCallback):
    """Seconds of each update but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self.seconds.append(now - self._since)
        self._since = now


def compare(output: Path, backbone: str) -> None:
    """Measures both variants and writes the result file, anew after each turn.

    Args:
        output: The file.
        backbone: Folder, Hub id or GGUF file of a language model.
    """
    llm2comp.keep_freed_memory()
    seconds: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    with TemporaryDirectory(prefix="llm2comp-micro-batches-") as name:
        folder = Path(name)
        pairs = _write_pairs(folder / "pairs.jsonl")
        for turn in range(_TURNS):
            for variant, rows in _VARIANTS.items():
                settings = ContrastiveSettings(
                    pairs=(str(pairs),),
                    batch_size=_BATCH,
                    steps=_UPDATES,
                    learning_rate=1e-4,
                    micro_batch=rows,
                    gradient_checkpointing=False,
                    max_negatives=1,
                    heldout_rows=0,
                )
                timer = _Timer()
                model = LLM2Comp.from_backbone(backbone, memory_tokens=8)
                train_contrastive(model, settings, folder / f"{variant}-{turn}", callbacks=[timer])
                seconds[variant] += timer.seconds
                _logger.info("%s: %s", variant, ", ".join(f"{each:.1f} s" for each in timer.seconds))
            _write(output, backbone, seconds)


def _write(output: Path, backbone: str, seconds: Mapping[str, Sequence[float]]) -> None:
    settings = {"backbone": backbone, "batch_size": _BATCH, "words": _WORDS, "memory_tokens": 8}
    medians = {variant: median(each) for variant, each in seconds.items()}
    ratio = medians["micro-batches"] / medians["one pass"]
    times = {"seconds": seconds, "median_seconds": medians, "ratio": ratio}
    write_record(output, result_record([], settings) | times)
    _logger.info("an update in micro-batches takes %.2f times as long as one in one pass", ratio)


def _write_pairs(path: Path) -> Path:
    """Writes pairs of made-up texts, as many as the updates of a run take."""
    chance = random.Random(0)
    words = ["".join(chance.choices("aeioulnrst", k=5)) for _ in range(2000)]
    rows = (
        {column: " ".join(chance.choices(words, k=count)) for column, count in _WORDS.items()}
        for _ in range(_BATCH * _UPDATES)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    compare(Path(sys.argv[1]), sys.argv[2])
