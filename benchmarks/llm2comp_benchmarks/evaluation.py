"""One model on one task of any kind, and the model and the tasks by the names a user gives."""

import logging
from pathlib import Path

from llm2comp.errors import CorpusError
from llm2comp_benchmarks.encoding import Encoder
from llm2comp_benchmarks.results import TaskResult, check_task_names
from llm2comp_benchmarks.retrieval import RetrievalTask, evaluate_run, read_beir, search_task
from llm2comp_benchmarks.sts import StsTask, evaluate_sts, read_sts
from llm2comp_benchmarks.systems import describe_model, load_model

__all__ = ["Task", "describe_model", "evaluate", "evaluate_local", "load_model", "read_local"]

Task = RetrievalTask | StsTask

_logger = logging.getLogger(__name__)
_LOCAL_BEIR = ("scifact", "cranfield", "xquad")
_LOCAL_STS = ("stsb/test.tsv.gz",)


def evaluate(model: Encoder, task: Task, *, batch_size: int = 32) -> TaskResult:
    """What the model scores on the task; retrieval is searched exactly, 1,000 documents deep."""
    if isinstance(task, StsTask):
        return evaluate_sts(task, model, batch_size=batch_size)
    run, seconds = search_task(task, model, batch_size=batch_size)
    return evaluate_run(task, run, seconds=seconds)


def read_local(data: str | Path) -> list[Task]:
    """The tasks found in a data folder: `stsb/test.tsv.gz` and the BEIR folders scifact, cranfield, xquad; an absent one is logged.

    Raises:
        CorpusError: None of them is there, or one is malformed.
    """
    root = Path(data)
    sts = [root / name for name in _LOCAL_STS if (root / name).is_file()]
    beir = [root / name for name in _LOCAL_BEIR if (root / name).is_dir()]
    absent = [name for name in (*_LOCAL_STS, *_LOCAL_BEIR) if root / name not in (*sts, *beir)]
    if not sts and not beir:
        raise CorpusError(f"{root}: holds none of {', '.join(absent)}; give the folder that holds them")
    if absent:
        _logger.warning("%s: not there and left out: %s", root, ", ".join(absent))
    return [*map(read_sts, sts), *map(read_beir, beir)]


def evaluate_local(model: Encoder, data: str | Path, *, batch_size: int = 32) -> dict[str, dict[str, float]]:
    """Task → metric → value of a model on the sets of a data folder (see `read_local`)."""
    tasks = read_local(data)
    check_task_names([task.name for task in tasks])
    return {task.name: evaluate(model, task, batch_size=batch_size).metrics for task in tasks}
