"""Late interaction beside one vector a text.

`python -m llm2comp_benchmarks.late.run benchmarks/results/late-small.json llm2comp-small FOLDER FOLDER` measures a
model on BEIR folders. A last argument `busy` notes that the machine had other work.
"""

import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import llm2comp
from llm2comp_benchmarks.late.measure import CANDIDATES, compare_set
from llm2comp_benchmarks.results.record import result_record, write_record
from llm2comp_benchmarks.tasks.retrieval import read_beir

__all__ = ["run"]

_logger = logging.getLogger(__name__)


def run(output: Path, name: str, folders: list[Path], *, busy: bool = False) -> None:
    """Measures the model on each folder and writes the result file, anew after each.

    Args:
        output: The file.
        name: Name, folder or Hub id of the model.
        folders: BEIR folders.
        busy: Whether the machine has other work, so that milliseconds are no more than an order of magnitude.
    """
    model = llm2comp.load(name, device="cpu")
    settings = {
        "model": name,
        "fingerprint": model.fingerprint,
        "dtype": str(model.encoder.backbone.language_model.dtype).removeprefix("torch."),
        "memory_tokens": model.memory_tokens,
        "dimension": model.get_embedding_dimension(),
        "candidates": CANDIDATES,
        "beside_other_work": busy,
    }
    rows, samples = [], {}
    for folder in folders:
        task = read_beir(folder)
        with TemporaryDirectory(prefix="llm2comp-late-") as workdir:
            for system in compare_set(task, model, Path(workdir)):
                _logger.info("%s", system.row)
                rows.append(system.row | {"documents": task.details["documents"], "queries": task.details["queries"]})
                samples[f"{task.name} {system.name}"] = {"metric": "ndcg_at_10", "values": system.values}
        write_record(output, result_record([], settings) | {"rows": rows, "samples": samples})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = sys.argv[1:]
    is_busy = given[-1] == "busy"
    run(Path(given[0]), given[1], [Path(folder) for folder in given[2 : len(given) - is_busy]], busy=is_busy)
