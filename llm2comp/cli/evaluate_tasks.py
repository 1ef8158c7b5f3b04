"""What `llm2comp eval` does with a model or a ranking: tasks read, scored, and printed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llm2comp import keep_freed_memory
from llm2comp.bundled_models import DEFAULT_MODEL

if TYPE_CHECKING:
    from llm2comp.encoder_options import EncoderOptions
    from llm2comp_benchmarks import TaskResult
    from llm2comp_benchmarks.evaluate.session import MtebTasks
    from llm2comp_benchmarks.evaluate.suites import Task
    from llm2comp_benchmarks.results.store import ResultStore
    from llm2comp_indexes import SearchOptions

__all__ = ["evaluate_model", "read_tasks", "score_run"]


def read_tasks(
    beir: list[Path],
    sts: list[Path],
    python_docs: Literal["standard", "all"] | None,
    local: Path | None,
    split: str,
    identical_ids: Literal["auto", "drop", "keep"],
    header: bool | None,
    quotes: bool | None,
) -> "list[Task]":
    """The tasks that are not of mteb, read and checked before a model is loaded, so that errors show early."""
    from llm2comp_benchmarks import read_beir, read_local, read_python_docs_task, read_sts

    read: dict[str, Any] = {"split": split, "identical_ids": identical_ids, "header": header, "quotes": quotes}
    tasks: list[Task] = [read_beir(folder, **read) for folder in beir]
    tasks += map(read_sts, sts)
    tasks += [read_python_docs_task(python_docs)] if python_docs else []
    tasks += read_local(local) if local else []
    return tasks


def score_run(run: Path, tasks: "list[Task]", store: "ResultStore") -> None:
    """Scores a ranking made elsewhere on the only task."""
    from llm2comp_benchmarks import RetrievalTask, evaluate_run, read_run

    store.start({"run": str(run)}, keep=False)
    results = [evaluate_run(task, read_run(run)) for task in tasks if isinstance(task, RetrievalTask)]
    store.add(results[0])
    _print_results(results)


def evaluate_model(
    model: str | None,
    encoder: "EncoderOptions",
    ranking: "SearchOptions",
    tasks: "list[Task]",
    mteb: "MtebTasks",
    store: "ResultStore",
    batch_size: int,
    run_out: Path | None,
) -> None:
    """Loads the model, evaluates it on what the store lacks, and prints all results.

    Args:
        model: Its name, folder or Hub id.
        encoder: How it runs.
        ranking: Mode, fusion and rescoring.
        tasks: Tasks that this package evaluates itself.
        mteb: Tasks of mteb.
        store: Results, old and new.
        batch_size: Texts in one pass of the model.
        run_out: File for the ranking of the only retrieval task.
    """
    from llm2comp_benchmarks import write_run
    from llm2comp_benchmarks.evaluate.session import EvaluationSession
    from llm2comp_benchmarks.results.record import format_main_metrics
    from llm2comp_benchmarks.systems.hybrid import Hybrid
    from llm2comp_benchmarks.systems.load import load_model
    from llm2comp_benchmarks.systems.rescored import Rescored
    from llm2comp_indexes.search.options import count_candidates

    keep_freed_memory()
    system, name = load_model(model, encoder), model
    hybrid = ranking if ranking.mode == "hybrid" else None
    if ranking.rescore is not None:
        system, name = Rescored(system, count_candidates(ranking, 1), hybrid), f"maxsim:{model or DEFAULT_MODEL}"
    elif hybrid is not None:
        system, name = Hybrid(system, hybrid), f"hybrid:{model or DEFAULT_MODEL}"
    session = EvaluationSession(
        system,
        name,
        tasks,
        mteb,
        store,
        batch_size=batch_size,
        options=encoder,
        keep_rankings=run_out is not None,
        on_result=lambda result, taken: _print_finished(result, store.path if taken else None),
    )
    results = session.evaluate_tasks()
    _print_results(results)
    for result in results:
        if run_out and result.run:
            write_run(run_out, result.run, tag="llm2comp")
    if mteb.tasks:
        print(format_main_metrics(session.evaluate_mteb()))


def _print_finished(result: "TaskResult", taken_from: Path | None) -> None:
    state = f"finished before, taken from {taken_from}" if taken_from else f"{result.seconds:.1f} s"
    print(f"{result.task}: {state}", file=sys.stderr)


def _print_results(results: "list[TaskResult]") -> None:
    """Tables on stdout, and on stderr what their reader should know."""
    from llm2comp_benchmarks.results.record import format_tables

    if results:
        print(format_tables(results))
    for result in results:
        shared = result.details.get("identical_ids", {"shared": 0})
        if shared["shared"]:
            print(
                f"{result.task}: {shared['shared']} queries share their id with a document; in {shared['dropped']} "
                f"rankings it was left out (--identical-ids {shared['rule']})",
                file=sys.stderr,
            )
        if missing := result.details.get("queries_missing_from_run"):
            print(
                f"{result.task}: {missing} of {result.details['queries']} judged queries are not in the run and count "
                "as 0",
                file=sys.stderr,
            )
