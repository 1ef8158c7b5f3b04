"""`llm2comp eval`: how good a model is, or a ranking made elsewhere, on test sets of one's own."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp.cli.output import check_target

if TYPE_CHECKING:
    from llm2comp_benchmarks import Suite, TaskResult
    from llm2comp_benchmarks.evaluate.suites import Task
    from llm2comp_benchmarks.results.store import ResultStore

__all__ = ["evaluate", "register"]


class PythonDocs(StrEnum):
    """Which Python documentation to search."""

    standard = "standard"
    all = "all"


class IdenticalIds(StrEnum):
    """What becomes of a document with the id of the query."""

    auto = "auto"
    drop = "drop"
    keep = "keep"


def register(app: typer.Typer) -> None:
    """Adds `eval` to the app."""
    app.command("eval")(evaluate)


def evaluate(
    beir: Annotated[
        list[Path] | None, typer.Option(help="Folder with corpus.jsonl, queries.jsonl and qrels/; may be repeated.")
    ] = None,
    sts: Annotated[
        list[Path] | None, typer.Option(help="Tab-separated sentence1, sentence2, score; may be repeated.")
    ] = None,
    python_docs: Annotated[
        PythonDocs | None,
        typer.Option(help="Summary line to body, over the standard library or all installed packages."),
    ] = None,
    local: Annotated[
        Path | None, typer.Option(help="Folder with stsb/test.tsv.gz, scifact/, cranfield/, xquad/: all of them.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="beir, local, paper, or a JSON file: all tasks of that suite.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="--suite: the folder in which the paths of the suite begin.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Task or benchmark of mteb, such as SciFact or 'MTEB(eng, v2)'; may be repeated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Folder or Hub id, or bm25, random, mean:BACKBONE …; without it the bundled model."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Score this TREC run on the one --beir folder; no model is loaded.")
    ] = None,
    split: Annotated[str, typer.Option(help="Judgements of --beir: qrels/SPLIT.tsv.")] = "test",
    identical_ids: Annotated[
        IdenticalIds,
        typer.Option(
            help="The document with the query's own id: drop it, keep it, or drop it where its text is the query (auto)."
        ),
    ] = IdenticalIds.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one pass of the model.")] = 32,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write task, metric, value here, with settings, versions, samples; a file with finished tasks is continued.",
        ),
    ] = None,
    run_out: Annotated[
        Path | None, typer.Option(help="Write the rankings of the one retrieval task here, as a TREC run.")
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(
            help="mteb: YAML or JSON, instruction by task (SciFact) or type (Retrieval, STS); put before the queries of retrieval."
        ),
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option(help="--tasks: ISO 639-3 code, such as eng, of multilingual tasks; may be repeated."),
    ] = None,
    output_folder: Annotated[
        Path | None,
        typer.Option(help="mteb: results in mteb's format, one file a task; those that are there are not run again."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Run again what --json and --output-folder have.")
    ] = False,
    model_name: Annotated[
        str | None, typer.Option(help="mteb: owner/name in --output-folder, where --model is not that Hub id already.")
    ] = None,
) -> None:
    """Score a model (retrieval, similarity, classification, clustering, reranking, or a suite of them), or a TREC run that is already there."""
    _check_belonging(
        bool(tasks or suite),
        bool(instructions or languages or output_folder or model_name),
        suite,
        data,
        json_file,
        overwrite=overwrite,
    )
    _check_usage(
        len(beir or []),
        len(sts or []),
        bool(python_docs),
        bool(local or suite),
        bool(tasks),
        run=run,
        run_out=run_out,
        model=model,
    )
    for file in (json_file, run_out):
        check_target(file)

    from llm2comp_benchmarks import read_suite
    from llm2comp_benchmarks.results.record import check_task_names
    from llm2comp_benchmarks.results.store import ResultStore

    store = ResultStore(json_file, overwrite=overwrite)
    chosen = read_suite(suite) if suite else None
    plan = _MtebPlan.read(
        tasks or [], chosen, languages, instructions, output_folder, overwrite=overwrite, model_name=model_name
    )
    own_tasks = _read_tasks(beir or [], sts or [], python_docs, local, split, identical_ids)
    own_tasks += chosen.read_own(data) if chosen else []
    check_task_names([task.name for task in own_tasks] + plan.names)
    plan.check_data(store)
    if run:
        _score_run(run, own_tasks, store)
    else:
        _evaluate_model(model, own_tasks, plan, store, batch_size, run_out)


def _score_run(run: Path, tasks: "list[Task]", store: "ResultStore") -> None:
    """Scores a ranking made elsewhere, on the one task there is."""
    from llm2comp_benchmarks import RetrievalTask, evaluate_run, read_run

    store.start({"run": str(run)}, keep=False)
    results = [evaluate_run(task, read_run(run)) for task in tasks if isinstance(task, RetrievalTask)]
    store.add(results[0])
    _show(results)


def _evaluate_model(
    model: str | None,
    own_tasks: "list[Task]",
    plan: "_MtebPlan",
    store: "ResultStore",
    batch_size: int,
    run_out: Path | None,
) -> None:
    """Evaluates what the store does not have, and shows everything: our own tasks, then mteb's."""
    from llm2comp_benchmarks import RetrievalTask, write_run
    from llm2comp_benchmarks import evaluate as evaluate_task
    from llm2comp_benchmarks.results.record import format_main_metrics
    from llm2comp_benchmarks.systems.load import load_model
    from llm2comp_benchmarks.tasks.encoding import check_kinds

    encoder = load_model(model)
    check_kinds(encoder, [task.name for task in own_tasks if not isinstance(task, RetrievalTask)] + plan.names)
    store.start(_describe(encoder, model) | {"batch_size": batch_size})
    finished = {
        task.name: None if run_out else store.finished(task.name, task.details) for task in own_tasks
    } | plan.look_up(encoder, store)
    results = []
    for task in own_tasks:
        results.append(finished[task.name] or evaluate_task(encoder, task, batch_size=batch_size))
        _take(store, results[-1], found=bool(finished[task.name]))
    _show(results)
    if plan.tasks:
        print(format_main_metrics(plan.evaluate(encoder, model, batch_size, store, finished)))
    for result in results:
        if run_out and result.run:
            write_run(run_out, result.run, tag="llm2comp")


def _show(results: "list[TaskResult]") -> None:
    from llm2comp_benchmarks.results.record import format_tables

    if results:
        print(format_tables(results))
        _print_notes(results)


def _describe(encoder: Any, model: str | None) -> dict[str, Any]:
    """As `describe_model`; a model of sentence-transformers, which has no fingerprint, gets one, or one trained anew would pass for the same."""
    from llm2comp_benchmarks.mteb.model import identify
    from llm2comp_benchmarks.systems.load import describe_model

    settings = describe_model(encoder, model)
    if settings["system"] == "sentence-transformers" and settings["fingerprint"] is None:
        settings["fingerprint"] = identify(encoder, model).revision
    return settings


def _take(store: "ResultStore", result: "TaskResult", *, found: bool) -> None:
    """Tells of a finished task on stderr, and writes it down if it is new."""
    if found:
        print(f"{result.task}: finished before, taken from {store.path}", file=sys.stderr)
    else:
        store.add(result)
        print(f"{result.task}: {result.seconds:.1f} s", file=sys.stderr)


@dataclass(frozen=True)
class _MtebPlan:
    """The tasks of mteb that `--tasks` and `--suite` name, and the options that go with them."""

    tasks: list[Any]
    instructions: dict[str, str]
    output_folder: Path | None
    overwrite: bool
    model_name: str | None

    @classmethod
    def read(
        cls,
        names: list[str],
        suite: "Suite | None",
        languages: list[str] | None,
        instructions: Path | None,
        output_folder: Path | None,
        *,
        overwrite: bool,
        model_name: str | None,
    ) -> "_MtebPlan":
        """Everything that can be wrong is found here, before a model is loaded."""
        from llm2comp_benchmarks.mteb.prompts import read_instructions, resolve_prompts
        from llm2comp_benchmarks.mteb.tasks import read_mteb_tasks

        tasks = (read_mteb_tasks(names, languages=languages) if names else []) + (suite.read_mteb() if suite else [])
        if not tasks and (instructions or output_folder or model_name):
            raise typer.BadParameter(
                "no task is mteb's, so --instructions, --output-folder and --model-name have nothing to do"
            )
        if languages and not names:
            raise typer.BadParameter(
                "--languages belongs to --tasks; a suite says itself which parts of a task it takes"
            )
        texts = read_instructions(instructions) if instructions else {}
        if texts:
            resolve_prompts({}, texts, tasks)
        return cls(tasks, texts, output_folder, overwrite, model_name)

    @property
    def names(self) -> list[str]:
        """The tasks by name."""
        return [task.metadata.name for task in self.tasks]

    def check_data(self, store: "ResultStore") -> None:
        """Looks whether data can be had at all, if any are needed; see `mteb_tasks.check_data`."""
        if self.tasks:
            from llm2comp_benchmarks.mteb.tasks import check_data

            check_data([task for task in self.tasks if not store.holds(task.metadata.name)], self.output_folder)

    def look_up(self, encoder: Any, store: "ResultStore") -> "dict[str, TaskResult | None]":
        """Results that are in the store already, by task."""
        from llm2comp_benchmarks.mteb.prompts import prompts_of, resolve_prompts
        from llm2comp_benchmarks.mteb.tasks import known_details

        if not self.tasks:
            return {}
        prompts = resolve_prompts(getattr(encoder, "prompts", {}), self.instructions, self.tasks)
        return {
            task.metadata.name: store.finished(task.metadata.name, known_details(task, prompts_of(task, prompts)))
            for task in self.tasks
        }

    def evaluate(
        self,
        encoder: Any,
        source: str | None,
        batch_size: int,
        store: "ResultStore",
        finished: "dict[str, TaskResult | None]",
    ) -> "list[TaskResult]":
        from llm2comp_benchmarks.mteb.model import identify
        from llm2comp_benchmarks.mteb.tasks import evaluate_mteb

        results = {name: found for name in self.names if (found := finished[name])}
        for result in results.values():
            _take(store, result, found=True)
        left = [task for task in self.tasks if task.metadata.name not in results]
        if left:
            identity = identify(encoder, source, self.model_name)
            options: Any = {
                "instructions": self.instructions,
                "output_folder": self.output_folder,
                "overwrite": self.overwrite,
            }
            for result in evaluate_mteb(encoder, left, identity, batch_size=batch_size, **options):
                results[result.task] = result
                _take(store, result, found=False)
        return [results[name] for name in self.names]


def _check_belonging(
    named: bool, of_mteb: bool, suite: str | None, data: Path | None, json_file: Path | None, *, overwrite: bool
) -> None:
    """Refuses options that go with others which are not given; `named`: tasks of mteb, or a suite that may have some."""
    if of_mteb and not named:
        raise typer.BadParameter(
            "--instructions, --languages, --output-folder and --model-name belong to --tasks or --suite"
        )
    if overwrite and not (named or json_file):
        raise typer.BadParameter("--overwrite belongs to --json or --output-folder")
    if data and not suite:
        raise typer.BadParameter("--data belongs to --suite")


def _check_usage(
    beir: int,
    sts: int,
    python_docs: bool,
    several: bool,
    mteb: bool,
    *,
    run: Path | None,
    run_out: Path | None,
    model: str | None,
) -> None:
    retrieval = beir + python_docs + 3 * several
    if not (retrieval or sts or mteb):
        raise typer.BadParameter(
            "nothing to evaluate on; give --beir, --sts, --python-docs, --local, --suite or --tasks"
        )
    if run and (beir != 1 or retrieval != 1 or sts or mteb or model or run_out):
        raise typer.BadParameter("--run takes one --beir folder, and no model, no other task and no --run-out")
    if run_out and retrieval != 1:
        raise typer.BadParameter("--run-out takes exactly one retrieval task: one --beir folder or --python-docs")


def _read_tasks(
    beir: list[Path],
    sts: list[Path],
    python_docs: PythonDocs | None,
    local: Path | None,
    split: str,
    identical_ids: IdenticalIds,
) -> "list[Task]":
    """Every task, read and checked before a model is loaded, so that a mistake in the last one costs seconds."""
    from llm2comp_benchmarks import read_beir, read_local, read_python_docs_task, read_sts

    tasks: list[Task] = [read_beir(folder, split=split, identical_ids=identical_ids.value) for folder in beir]
    tasks += map(read_sts, sts)
    if python_docs:
        tasks.append(read_python_docs_task(python_docs.value))
    if local:
        tasks += read_local(local)
    return tasks


def _print_notes(results: "list[TaskResult]") -> None:
    """What a reader of the table should know, on stderr."""
    for result in results:
        shared = result.details.get("identical_ids", {"shared": 0})
        if shared["shared"]:
            print(
                f"{result.task}: {shared['shared']} queries share their id with a document; in {shared['dropped']} "
                "rankings it was left out "
                f"(--identical-ids {shared['rule']})",
                file=sys.stderr,
            )
        if missing := result.details.get("queries_missing_from_run"):
            print(
                f"{result.task}: {missing} of {result.details['queries']} judged queries are not in the run and count "
                "as 0",
                file=sys.stderr,
            )
