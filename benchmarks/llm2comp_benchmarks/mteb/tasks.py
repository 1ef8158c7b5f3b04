"""Tasks of mteb, the benchmark of the public leaderboard, with instructions, and results in mteb's folders."""

import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm2comp.errors import LLM2CompError, SettingsError, one_line
from llm2comp.streams import on_terminal
from llm2comp_benchmarks.mteb.model import Identity, describe_for_mteb, import_mteb, wrap_for_mteb
from llm2comp_benchmarks.mteb.prompts import UsedPrompts, leaves, prompts_of, resolve_prompts
from llm2comp_benchmarks.mteb.samples import has_samples, read_samples
from llm2comp_benchmarks.results.record import Samples, TaskResult

__all__ = ["check_data", "evaluate_mteb", "known_details", "read_mteb_task", "read_mteb_tasks"]

_HUB_TIMEOUT = 10.0


def read_mteb_tasks(names: Sequence[str], *, languages: Sequence[str] | None = None) -> list[Any]:
    """The tasks with these names; the name of a benchmark, such as `MTEB(eng, v2)`, stands for all of its tasks.

    Args:
        names: mteb's names.
        languages: ISO 639-3 codes, such as `eng`; other parts of multilingual tasks are left out. None: all.

    Raises:
        SettingsError: There is no such task or benchmark, or none is left in these languages.
        LLM2CompError: mteb is not installed.
    """
    mteb = import_mteb()
    tasks: list[Any] = []
    for name in names:
        with warnings.catch_warnings():
            # where no task is left, the error below says so
            warnings.filterwarnings("ignore", "Skipping task", UserWarning)
            try:
                named = list(mteb.get_tasks(tasks=[name], languages=languages))
            except KeyError as error:
                named = _members(name, languages, str(error.args[0]).removeprefix("KeyError: "))
        if not named:
            raise SettingsError(
                f"the task {name} has nothing in {', '.join(languages or [])}; leave --languages out or give others"
            )
        tasks += [task for task in named if task.metadata.name not in {other.metadata.name for other in tasks}]
    return tasks


def read_mteb_task(name: str, *, subsets: Sequence[str] | None = None, splits: Sequence[str] | None = None) -> Any:
    """The task with this name, restricted to subsets and splits if they are given.

    Raises:
        SettingsError: There is no such task, or it has no such subset.
        LLM2CompError: mteb is not installed.
    """
    mteb = import_mteb()
    try:
        return mteb.get_task(name, hf_subsets=subsets, eval_splits=splits)
    except KeyError as error:
        raise SettingsError(
            f"mteb has no task of this name: {str(error.args[0]).removeprefix('KeyError: ')}"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"mteb's task {name} has none of the subsets {', '.join(subsets or [])}; leave subsets out or give others"
        ) from error


def _members(benchmark: str, languages: Sequence[str] | None, hint: str) -> list[Any]:
    """The tasks of a benchmark in these languages; `hint` is what mteb says of an unknown name."""
    mteb = import_mteb()
    try:
        tasks = list(mteb.get_benchmark(benchmark).tasks)
    except KeyError as error:
        raise SettingsError(f"mteb has no task or benchmark of this name: {hint}") from error
    if languages is None:
        return tasks
    spoken = [task for task in tasks if {code.partition("-")[0] for code in task.metadata.languages} & set(languages)]
    return [task.filter_languages(languages) for task in spoken]


def check_data(tasks: Sequence[Any], output_folder: Path | None = None) -> None:
    """Loads the data of the first task without results.

    So a Hub that does not answer is noticed before a large model is loaded.

    Raises:
        LLM2CompError: The data cannot be loaded.
    """
    for task in tasks:
        for leaf in leaves(task):
            if output_folder is None or not any(output_folder.glob(f"results/*/*/{leaf.metadata.name}.json")):
                _load_data(leaf)
                return


def evaluate_mteb(
    model: Any,
    tasks: Sequence[Any],
    identity: Identity,
    *,
    instructions: Mapping[str, str] | None = None,
    output_folder: str | Path | None = None,
    batch_size: int = 32,
    overwrite: bool = False,
) -> Iterator[TaskResult]:
    """Results of a sentence-transformers model, ours or another, task by task.

    Args:
        model: The model.
        tasks: As `read_mteb_tasks` returns them, or made by hand.
        identity: Name and revision that results are filed under.
        instructions: They override the prompts of the model; see `resolve_prompts`.
        output_folder: For `results/NAME/REVISION/TASK.json` in mteb's format; tasks with a result there are not run
            again.
        batch_size: Texts in one pass of the model.
        overwrite: Whether such tasks are run again.

    Raises:
        SettingsError: An instruction names no task, or a result in the folder was made with other instructions.
        LLM2CompError: The data of a task cannot be loaded; results of earlier tasks are in the output folder.
    """
    mteb = import_mteb()
    prompts = resolve_prompts(getattr(model, "prompts", {}), instructions or {}, tasks)
    meta = describe_for_mteb(model, identity, prompts)
    wrapper = wrap_for_mteb(model, meta, prompts)
    with tempfile.TemporaryDirectory() as scratch:
        cache = mteb.ResultCache(output_folder or scratch)
        used = UsedPrompts(Path(output_folder or scratch), meta)
        if not overwrite:
            used.check(cache, [leaf for task in tasks for leaf in leaves(task)], prompts)
        for task in tasks:
            for leaf in leaves(task):
                result, samples = _evaluate(leaf, wrapper, cache, batch_size, overwrite=overwrite)
                used.note(leaf, prompts)
            if leaves(task) != [task]:  # an aggregate of what was evaluated above
                combined = mteb.evaluate(wrapper, task, cache=cache, co2_tracker=False, show_progress_bar=False)
                result, samples = combined.task_results[0], None
            yield _task_result(task, result, prompts_of(task, prompts), batch_size, samples)


def _evaluate(task: Any, wrapper: Any, cache: Any, batch_size: int, *, overwrite: bool) -> tuple[Any, Samples | None]:
    """The result of one task, and its samples; a result from the cache has none."""
    mteb = import_mteb()
    cached = None if overwrite else cache.load_task_result(task.metadata.name, wrapper.mteb_model_meta)
    if cached is None or cached.get_missing_evaluations(task):
        _load_data(task)
    with_samples = has_samples(task)
    try:
        with warnings.catch_warnings(), _bars_on_terminals_only(), tempfile.TemporaryDirectory() as predictions:
            warnings.filterwarnings("ignore", "The task .* is superseded", UserWarning)  # mteb logs that too
            evaluated = mteb.evaluate(
                wrapper,
                task,
                cache=cache,
                co2_tracker=False,
                encode_kwargs={"batch_size": batch_size, "show_progress_bar": on_terminal()},
                prediction_folder=predictions if with_samples else None,
                overwrite_strategy="always" if overwrite else "only-missing",
                show_progress_bar=False,
            )
            result, samples = evaluated.task_results[0], None
            if with_samples:
                samples = read_samples(task, result.scores[task.eval_splits[0]][0], Path(predictions))
    finally:
        if task.data_loaded:
            task.unload_data()
    return result, samples


def _load_data(task: Any) -> None:
    """Loads the data of a task from the local cache, else from the Hub, after one short request to the Hub."""
    if task.data_loaded:
        return
    from huggingface_hub import HfApi

    try:
        with _hub_offline(), _bars_on_terminals_only():
            task.load_data()
        return
    except Exception as error:  # from datasets, from the hub's client, and from the task itself
        no_copy = f"no copy on this machine: {one_line(error, limit=160)}"
    name, dataset = task.metadata.name, task.metadata.dataset
    try:
        HfApi().dataset_info(dataset["path"], revision=dataset.get("revision"), timeout=_HUB_TIMEOUT)
        with _bars_on_terminals_only():
            task.load_data()
    except Exception as error:
        raise LLM2CompError(
            f"{name}: its data set {dataset['path']} cannot be loaded ({no_copy}; the Hub: "
            f"{one_line(error, limit=160)}); with the network back, run the same command again"
        ) from error


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    import datasets

    before = datasets.are_progress_bars_disabled()
    if not on_terminal():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Restricts the Hub's client and datasets to their caches; else they try the network for half a minute a file."""
    import datasets.config
    import huggingface_hub.constants

    modules: tuple[Any, Any] = (huggingface_hub.constants, datasets.config)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, state in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = state


def known_details(task: Any, prompts: dict[str, str | None]) -> dict[str, Any]:
    """The details of a task's result that are known before the task is run.

    Args:
        task: The task.
        prompts: As `prompts_of` returns them.
    """
    details = {
        "benchmark": "mteb",
        "main_metric": task.metadata.main_score,
        "type": task.metadata.type,
        "data_set": task.metadata.revision,
        "prompts": prompts,
    }
    return details | (
        {"parts": {split: sorted(task.hf_subsets) for split in task.eval_splits}} if leaves(task) == [task] else {}
    )


def _task_result(
    task: Any, result: Any, prompts: dict[str, str | None], batch_size: int, samples: Samples | None
) -> TaskResult:
    rows = [row for rows in result.scores.values() for row in rows]
    shared = [key for key in rows[0] if all(_is_number(row.get(key)) for row in rows)]
    metrics = {key: float(math.fsum(row[key] for row in rows) / len(rows)) for key in shared}
    details = known_details(task, prompts) | {
        "data_set": result.dataset_revision,
        "parts": {split: sorted(row["hf_subset"] for row in rows) for split, rows in result.scores.items()},
        "batch_size": batch_size,
    }
    return TaskResult(task.metadata.name, metrics, details, result.evaluation_time or 0.0, samples=samples)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
