"""`llm2comp eval`: scores of a model, or of a ranking made elsewhere, on test sets."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llm2comp.cli.evaluate_index import evaluate_index_command
from llm2comp.cli.evaluate_tasks import evaluate_model, read_tasks, score_run
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
    tasks = read_tasks(beir or [], sts or [], python_docs, local, split, identical_ids, header, quotes)
    tasks += chosen.read_own(data) if chosen else []
    check_task_names([task.name for task in tasks] + mteb.names)
    mteb.check_data(store)
    if run:
        score_run(run, tasks, store)
    else:
        evaluate_model(model, encoder, ranking, tasks, mteb, store, batch_size, run_out)


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
