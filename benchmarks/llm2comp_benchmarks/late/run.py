"""Late interaction beside one vector a text.

`python -m llm2comp_benchmarks.late.run benchmarks/results/late-small.json llm2comp-small FOLDER FOLDER` measures a
model on BEIR folders. In place of the model, `NAME=MODEL,NAME=MODEL` measures several, to be compared with the first:
the variants of `late.train`, for example. A last argument `busy` notes that the machine had other work.
"""

import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llm2comp
from llm2comp_benchmarks.late.measure import CANDIDATES, compare_set, sample_key
from llm2comp_benchmarks.results.record import result_record, write_record
from llm2comp_benchmarks.tasks.retrieval import read_beir

__all__ = ["run"]

_logger = logging.getLogger(__name__)


def run(output: Path, models: str, folders: list[Path], *, busy: bool = False) -> None:
    """Measures the models on each folder and writes the result file, anew after each.

    Args:
        output: The file.
        models: Name, folder or Hub id of a model, or `NAME=MODEL` for each of several, with commas.
        folders: BEIR folders.
        busy: Whether the machine has other work, so that milliseconds are no more than an order of magnitude.
    """
    named = [model.rpartition("=")[::2] for model in models.split(",")]
    settings: dict[str, Any] = {"candidates": CANDIDATES, "beside_other_work": busy}
    rows, samples = [], {}
    for name, place in named:
        model = llm2comp.load(place, device="cpu")
        if name:
            settings.setdefault("models", {})[name] = _describe(model, place)
        else:
            settings = _describe(model, place) | settings
        of_model = {"model": name} if name else {}
        for folder in folders:
            task = read_beir(folder)
            counts = {name: task.details[name] for name in ("documents", "queries")}
            with TemporaryDirectory(prefix="llm2comp-late-") as workdir:
                for system in compare_set(task, model, Path(workdir)):
                    _logger.info("%s", system.row)
                    rows.append(of_model | system.row | counts)
                    samples[sample_key(rows[-1])] = {"metric": "ndcg_at_10", "values": system.values}
            write_record(output, result_record([], settings) | {"rows": rows, "samples": samples})


def _describe(model: Any, name: str) -> dict[str, Any]:
    return {
        "model": name,
        "fingerprint": model.fingerprint,
        "dtype": str(model.encoder.backbone.language_model.dtype).removeprefix("torch."),
        "memory_tokens": model.memory_tokens,
        "dimension": model.get_embedding_dimension(),
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = sys.argv[1:]
    is_busy = given[-1] == "busy"
    run(Path(given[0]), given[1], [Path(folder) for folder in given[2 : len(given) - is_busy]], busy=is_busy)
