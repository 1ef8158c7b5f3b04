"""`llm2comp eval`: scores of a model, or of a ranking made elsewhere, on test sets."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.bundled_models import DEFAULT_MODEL
from llm2comp.cli.evaluate_index import evaluate_index_command
from llm2comp.cli.index_options import (
    Candidates,
    Dtype,
    Engine,
    Fusion,
    Header,
    MaxLength,
    OnlyModelDevice,
    Quotes,
    Rescore,
    TruncateDim,
    Weights,
    check_fusion,
    encoder_options,
)
from llm2comp.cli.output import check_target, wrong_usage

if TYPE_CHECKING:
    from llm2comp.encoder_options import EncoderOptions
    from llm2comp_benchmarks import TaskResult
    from llm2comp_benchmarks.evaluate.session import MtebTasks
    from llm2comp_benchmarks.evaluate.suites import Task
    from llm2comp_benchmarks.results.store import ResultStore
    from llm2comp_indexes import SearchOptions

__all__ = ["evaluate", "register"]

Beir = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="Folder with corpus.jsonl, queries.jsonl and qrels/; may be repeated."),
]
Sts = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Tab-separated sentence1, sentence2, score; may be repeated."),
]
PythonDocs = Annotated[
    Literal["standard", "all"] | None,
    typer.Option(
        help="Find a docstring by its summary line, in the standard library or in all installed packages (all)."
    ),
]
Local = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with stsb/test.tsv.gz, scifact/, cranfield/, xquad/: all that are there."),
]
SuiteName = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="All tasks of a suite: beir, local, paper or a JSON file.")
]
Data = Annotated[Path | None, typer.Option(metavar="DIR", help="With --suite: folder that its paths start from.")]
MtebNames = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks",
        metavar="NAME",
        help="Task or benchmark of mteb, such as SciFact or 'MTEB(eng, v2)'; may be repeated.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Bundled model by name, folder or Hub id; or bm25, random, mean:BACKBONE …",
        show_default="the bundled model",
    ),
]
RunFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Score this TREC run on one --beir folder; no model is loaded.")
]
Split = Annotated[str, typer.Option(metavar="NAME", help="Judgements of --beir: qrels/NAME.tsv.")]
IdenticalIds = Annotated[
    Literal["auto", "drop", "keep"],
    typer.Option(
        help="Document with the same id as the query: drop or keep it in the ranking; auto drops it if the texts match."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts in one pass of the model.")]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write scores, settings, versions and samples to this file; tasks that it holds are not run again.",
    ),
]
RunOut = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the ranking of the only retrieval task to this file, as a TREC run."),
]
Instructions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="mteb: YAML or JSON file, instruction by task (SciFact) or type (Retrieval, STS); in retrieval, it is put "
        "before queries only.",
    ),
]
Languages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CODE", help="With --tasks: language of multilingual tasks, ISO 639-3, such as eng; may be repeated."
    ),
]
OutputFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="mteb: folder for results in mteb's format; tasks with a result there are not run again."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Run tasks again that --json and --output-folder have results of.")
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="mteb: name in --output-folder, if --model is not that Hub id itself."),
]


IndexFolder = Annotated[
    Path | None,
    typer.Option("--index", metavar="DIR", help="Score the answers of this index to --queries, by --qrels."),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="With --index: questions, JSON lines with _id and text, or .csv, .tsv, .parquet."
    ),
]
QrelsFile = Annotated[
    Path | None,
    typer.Option(
        "--qrels", metavar="FILE", help="With --index: judgements, as BEIR's qrels/test.tsv or in TREC's form."
    ),
]
Mode = Annotated[
    Literal["dense", "bm25", "hybrid"] | None,
    typer.Option(help="Rank by vectors, by words, or by both, an index or a model.", show_default="dense"),
]


def register(app: typer.Typer) -> None:
    """Adds `eval` to the app."""
    app.command("eval", short_help="Score a model, or a TREC run, on test sets.")(evaluate)


def evaluate(
    beir: Beir = None,
    sts: Sts = None,
    python_docs: PythonDocs = None,
    local: Local = None,
    suite: SuiteName = None,
    data: Data = None,
    mteb_names: MtebNames = None,
    index: IndexFolder = None,
    queries: Queries = None,
    qrels: QrelsFile = None,
    mode: Mode = None,
    fusion: Fusion = None,
    weights: Weights = None,
    rescore: Rescore = None,
    candidates: Candidates = None,
    model: Model = None,
    run: RunFile = None,
    split: Split = "test",
    identical_ids: IdenticalIds = "auto",
    header: Header = None,
    quotes: Quotes = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = 32,
    engine: Engine = None,
    device: OnlyModelDevice = None,
    json_file: JsonFile = None,
    run_out: RunOut = None,
    instructions: Instructions = None,
    languages: Languages = None,
    output_folder: OutputFolder = None,
    overwrite: Overwrite = False,
    model_name: ModelName = None,
) -> None:
    """Score a model on test sets: retrieval, similarity, classification, clustering, reranking, or a suite of them.

    With --run, score a ranking made elsewhere. With --index, score an index on disk by your own questions: chunks count
    as their documents.
    """
    running: dict[str, Any] = {"engine": engine, "device": device}
    check_fusion(mode, fusion, weights)
    from llm2comp_indexes import SearchOptions

    with wrong_usage():
        ranking = SearchOptions(
            mode=mode or "dense",
            fusion=fusion or "scores",
            weights=weights,
            rescore=rescore,
            candidates=candidates,
        )
    encoder = encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running)
    if index:
        if beir or sts or python_docs or local or suite or mteb_names or run:
            raise typer.BadParameter("--index takes --queries and --qrels, and no other task and no --run")
        for file in (json_file, run_out):
            check_target(file)
        targets = (json_file, run_out)
        reading: dict[str, Any] = {"header": header, "quotes": quotes, "overwrite": overwrite}
        evaluate_index_command(index, queries, qrels, ranking, model, encoder, *targets, **reading)
        return
    if queries or qrels:
        raise typer.BadParameter("--queries and --qrels belong to --index")
    if mode == "bm25":
        raise typer.BadParameter("--mode bm25 belongs to --index; without one, give --model bm25")
    mteb_options = bool(instructions or output_folder or model_name)
    _check_mteb_options(bool(mteb_names), suite, languages, mteb_options)
    if overwrite and not (mteb_names or suite or json_file):
        raise typer.BadParameter("--overwrite belongs to --json or --output-folder")
    if (header, quotes) != (None, None) and not beir:
        raise typer.BadParameter("--header, --no-header, --quotes and --no-quotes belong to --beir")
    if data and not suite:
        raise typer.BadParameter("--data belongs to --suite")
    retrieval = len(beir or []) + bool(python_docs) + 3 * bool(local or suite)  # these two may hold several
    _check_tasks(len(beir or []), retrieval, bool(sts or mteb_names), run, run_out, model)
    for file in (json_file, run_out):
        check_target(file)
    if run and any((mode, rescore, dtype, max_length, truncate_dim, engine, device)):
        raise typer.BadParameter("--run scores a ranking made elsewhere; options of a model have no use with it")

    from llm2comp_benchmarks import read_suite
    from llm2comp_benchmarks.evaluate.session import MtebOptions, MtebTasks
    from llm2comp_benchmarks.results.record import check_task_names
    from llm2comp_benchmarks.results.store import ResultStore

    store = ResultStore(json_file, overwrite=overwrite)
    chosen = read_suite(suite) if suite else None
    options = MtebOptions(languages, instructions, output_folder, model_name, overwrite)
    mteb = MtebTasks.read(mteb_names or [], chosen, options)
    if mteb_options and not mteb.tasks:
        raise typer.BadParameter("--instructions, --output-folder and --model-name need a task of mteb; there is none")
    tasks = _read_tasks(beir or [], sts or [], python_docs, local, split, identical_ids, header, quotes)
    tasks += chosen.read_own(data) if chosen else []
    check_task_names([task.name for task in tasks] + mteb.names)
    mteb.check_data(store)
    if run:
        _score_run(run, tasks, store)
    else:
        _evaluate_model(model, encoder, ranking, tasks, mteb, store, batch_size, run_out)


def _check_mteb_options(tasks: bool, suite: str | None, languages: list[str] | None, others: bool) -> None:
    """Refuses options of mteb without a task of it."""
    if (languages or others) and not (tasks or suite):
        raise typer.BadParameter(
            "--instructions, --languages, --output-folder and --model-name belong to --tasks or --suite"
        )
    if languages and not tasks:
        raise typer.BadParameter("--languages belongs to --tasks; a suite names the parts of its tasks itself")


def _check_tasks(
    beir: int, retrieval: int, others: bool, run: Path | None, run_out: Path | None, model: str | None
) -> None:
    """Refuses no task at all, and files of a ranking with other tasks than they can be of.

    Args:
        beir: How many BEIR folders.
        retrieval: How many retrieval tasks, BEIR folders included.
        others: Whether there are tasks of other kinds, or of mteb.
        run: The ranking to score.
        run_out: The file for a ranking.
        model: The model to evaluate.
    """
    if not (retrieval or others):
        raise typer.BadParameter(
            "nothing to evaluate on; give --beir, --sts, --python-docs, --local, --suite, --tasks or --index"
        )
    if run and (beir != 1 or retrieval != 1 or others or model or run_out):
        raise typer.BadParameter("--run takes one --beir folder, and no model, no other task and no --run-out")
    if run_out and retrieval != 1:
        raise typer.BadParameter("--run-out takes exactly one retrieval task: one --beir folder or --python-docs")


def _read_tasks(
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


def _score_run(run: Path, tasks: "list[Task]", store: "ResultStore") -> None:
    """Scores a ranking made elsewhere on the only task."""
    from llm2comp_benchmarks import RetrievalTask, evaluate_run, read_run

    store.start({"run": str(run)}, keep=False)
    results = [evaluate_run(task, read_run(run)) for task in tasks if isinstance(task, RetrievalTask)]
    store.add(results[0])
    _print_results(results)


def _evaluate_model(
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
