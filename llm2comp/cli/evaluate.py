"""`llm2comp eval`: how good a model is, or a ranking made elsewhere, on test sets of one's own."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llm2comp_benchmarks import RetrievalTask, StsTask, TaskResult

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
    beir: Annotated[list[Path] | None, typer.Option(help="Folder with corpus.jsonl, queries.jsonl and qrels/; may be repeated.")] = None,
    sts: Annotated[list[Path] | None, typer.Option(help="Tab-separated sentence1, sentence2, score; may be repeated.")] = None,
    python_docs: Annotated[PythonDocs | None, typer.Option(help="Summary line to body, over the standard library or all installed packages.")] = None,
    local: Annotated[Path | None, typer.Option(help="Folder with stsb/test.tsv.gz, scifact/, cranfield/, xquad/: all of them.")] = None,
    tasks: Annotated[list[str] | None, typer.Option(help="Task or benchmark of mteb, such as SciFact or 'MTEB(eng, v2)'; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model folder or Hub id; without it the bundled model.")] = None,
    run: Annotated[Path | None, typer.Option(help="Score this TREC run on the one --beir folder; no model is loaded.")] = None,
    split: Annotated[str, typer.Option(help="Judgements of --beir: qrels/SPLIT.tsv.")] = "test",
    identical_ids: Annotated[
        IdenticalIds, typer.Option(help="The document with the query's own id: drop it, keep it, or drop it where its text is the query (auto).")
    ] = IdenticalIds.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one pass of the model.")] = 32,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write task, metric, value here, with settings and versions.")] = None,
    run_out: Annotated[Path | None, typer.Option(help="Write the rankings of the one retrieval task here, as a TREC run.")] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="--tasks: YAML or JSON, instruction by task (SciFact) or type (Retrieval, STS); put before the queries of retrieval.")
    ] = None,
    languages: Annotated[list[str] | None, typer.Option(help="--tasks: ISO 639-3 code, such as eng, of multilingual tasks; may be repeated.")] = None,
    output_folder: Annotated[
        Path | None, typer.Option(help="--tasks: results in mteb's format, one file a task; those that are there are not run again.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="--tasks: run again what --output-folder has.")] = False,
    model_name: Annotated[str | None, typer.Option(help="--tasks: owner/name in --output-folder, where --model is not that Hub id already.")] = None,
) -> None:
    """Score a model (nDCG@10, MAP, Recall@100, MRR@10; Spearman for sentence pairs), or a TREC run that is already there."""
    if not tasks and (instructions or languages or output_folder or overwrite or model_name):
        raise typer.BadParameter("--instructions, --languages, --output-folder, --overwrite and --model-name belong to --tasks")
    _check_usage(len(beir or []), len(sts or []), bool(python_docs), bool(local), bool(tasks), run=run, run_out=run_out, model=model)
    for file in (json_file, run_out):
        if file and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"{file}: there is no folder {file.parent}; make it first")

    from llm2comp_benchmarks import RetrievalTask, evaluate_run, read_run, write_results, write_run
    from llm2comp_benchmarks import evaluate as evaluate_task
    from llm2comp_benchmarks.evaluation import describe_model, load_model
    from llm2comp_benchmarks.results import format_main_metrics, format_table

    own_tasks = _read_tasks(beir or [], sts or [], python_docs, local, split, identical_ids)
    plan = _MtebPlan.read(tasks, languages, instructions, output_folder, overwrite=overwrite, model_name=model_name) if tasks else None
    if run:
        results, settings = [evaluate_run(task, read_run(run)) for task in own_tasks if isinstance(task, RetrievalTask)], {"run": str(run)}
    else:
        encoder = load_model(model)
        results = []
        for task in own_tasks:
            results.append(evaluate_task(encoder, task, batch_size=batch_size))
            print(f"{task.name}: {results[-1].seconds:.1f} s", file=sys.stderr)
        settings = describe_model(encoder, model) | {"batch_size": batch_size}
    if results:
        print(format_table(results))
        _print_notes(results)
    if plan:
        from_mteb = plan.evaluate(encoder, model, batch_size)
        print(format_main_metrics(from_mteb))
        results += from_mteb
    if json_file:
        write_results(json_file, results, settings)
    for result in results:
        if run_out and result.run:
            write_run(run_out, result.run, tag="llm2comp")


@dataclass(frozen=True)
class _MtebPlan:
    """What `--tasks` and the options that go with it ask for."""

    tasks: list[Any]
    instructions: dict[str, str]
    output_folder: Path | None
    overwrite: bool
    model_name: str | None

    @classmethod
    def read(
        cls, names: list[str], languages: list[str] | None, instructions: Path | None, output_folder: Path | None, *, overwrite: bool, model_name: str | None
    ) -> "_MtebPlan":
        """Everything that can be wrong is found here, before a model is loaded."""
        from llm2comp_benchmarks.mteb_prompts import read_instructions, resolve_prompts
        from llm2comp_benchmarks.mteb_tasks import check_data, read_mteb_tasks

        tasks = read_mteb_tasks(names, languages=languages)
        texts = read_instructions(instructions) if instructions else {}
        resolve_prompts({}, texts, tasks)
        check_data(tasks, output_folder)
        return cls(tasks, texts, output_folder, overwrite, model_name)

    def evaluate(self, encoder: Any, source: str | None, batch_size: int) -> "list[TaskResult]":
        from llm2comp_benchmarks.mteb_model import identify
        from llm2comp_benchmarks.mteb_tasks import evaluate_mteb

        results = []
        for result in evaluate_mteb(
            encoder,
            self.tasks,
            identify(encoder, source, self.model_name),
            instructions=self.instructions,
            output_folder=self.output_folder,
            batch_size=batch_size,
            overwrite=self.overwrite,
        ):
            results.append(result)
            print(f"{result.task}: {result.seconds:.1f} s", file=sys.stderr)
        return results


def _check_usage(beir: int, sts: int, python_docs: bool, local: bool, mteb: bool, *, run: Path | None, run_out: Path | None, model: str | None) -> None:
    retrieval = beir + python_docs + 3 * local
    if not (retrieval or sts or mteb):
        raise typer.BadParameter("nothing to evaluate on; give --beir, --sts, --python-docs, --local or --tasks")
    if run and (beir != 1 or retrieval != 1 or sts or mteb or model or run_out):
        raise typer.BadParameter("--run takes one --beir folder, and no model, no other task and no --run-out")
    if run_out and retrieval != 1:
        raise typer.BadParameter("--run-out takes exactly one retrieval task: one --beir folder or --python-docs")


def _read_tasks(
    beir: list[Path], sts: list[Path], python_docs: PythonDocs | None, local: Path | None, split: str, identical_ids: IdenticalIds
) -> "list[RetrievalTask | StsTask]":
    """Every task, read and checked before a model is loaded, so that a mistake in the last one costs seconds."""
    from llm2comp_benchmarks import read_beir, read_local, read_python_docs_task, read_sts
    from llm2comp_benchmarks.results import check_task_names

    tasks: list[RetrievalTask | StsTask] = [read_beir(folder, split=split, identical_ids=identical_ids.value) for folder in beir]
    tasks += map(read_sts, sts)
    if python_docs:
        tasks.append(read_python_docs_task(python_docs.value))
    if local:
        tasks += read_local(local)
    check_task_names([task.name for task in tasks])
    return tasks


def _print_notes(results: "list[TaskResult]") -> None:
    """What a reader of the table should know, on stderr."""
    for result in results:
        shared = result.details.get("identical_ids", {"shared": 0})
        if shared["shared"]:
            print(
                f"{result.task}: {shared['shared']} queries share their id with a document; in {shared['dropped']} rankings it was left out "
                f"(--identical-ids {shared['rule']})",
                file=sys.stderr,
            )
        if missing := result.details.get("queries_missing_from_run"):
            print(f"{result.task}: {missing} of {result.details['queries']} judged queries are not in the run and count as 0", file=sys.stderr)
