"""One model on many tasks, ours and mteb's; finished tasks are taken from a result file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm2comp.encoder_options import EncoderOptions
from llm2comp_benchmarks.evaluate.suites import Suite
from llm2comp_benchmarks.evaluate.tasks import Task, evaluate
from llm2comp_benchmarks.mteb.model import identify
from llm2comp_benchmarks.mteb.prompts import prompts_of, read_instructions, resolve_prompts
from llm2comp_benchmarks.mteb.tasks import check_data, evaluate_mteb, known_details, read_mteb_tasks
from llm2comp_benchmarks.results.record import TaskResult
from llm2comp_benchmarks.results.store import ResultStore
from llm2comp_benchmarks.systems.hybrid import Hybrid
from llm2comp_benchmarks.systems.load import describe_model
from llm2comp_benchmarks.systems.rescored import Rescored
from llm2comp_benchmarks.tasks.encoding import check_kinds
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask

__all__ = ["EvaluationSession", "MtebOptions", "MtebTasks"]


@dataclass(frozen=True)
class MtebOptions:
    """Options that concern tasks of mteb only.

    Attributes:
        languages: ISO 639-3 codes; the parts of multilingual tasks to run, for tasks given by name.
        instructions: YAML or JSON file, instruction by task or type.
        output_folder: Folder for results in mteb's format.
        model_name: owner/name that results are filed under.
        overwrite: Whether tasks with results in the output folder are run again.
    """

    languages: list[str] | None = None
    instructions: Path | None = None
    output_folder: Path | None = None
    model_name: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class MtebTasks:
    """Tasks of mteb, read and checked; their data are not loaded.

    Attributes:
        tasks: mteb's task objects.
        instructions: Text by task or type, of the file in `options`.
        options: How they are run.
    """

    tasks: list[Any] = field(default_factory=list)
    instructions: dict[str, str] = field(default_factory=dict)
    options: MtebOptions = field(default_factory=MtebOptions)

    @classmethod
    def read(cls, names: Sequence[str], suite: Suite | None, options: MtebOptions) -> "MtebTasks":
        """The tasks with these names and those of a suite.

        Raises:
            SettingsError: A task does not exist, or an instruction is for no task.
        """
        tasks = read_mteb_tasks(names, languages=options.languages) if names else []
        tasks += suite.read_mteb() if suite else []
        instructions = read_instructions(options.instructions) if options.instructions else {}
        if instructions:
            resolve_prompts({}, instructions, tasks)
        return cls(tasks, instructions, options)

    @property
    def names(self) -> list[str]:
        """Names of the tasks."""
        return [task.metadata.name for task in self.tasks]

    def check_data(self, store: ResultStore) -> None:
        """Checks that data can be loaded, if the store lacks a task; see `mteb.tasks.check_data`."""
        if self.tasks:
            check_data([task for task in self.tasks if not store.holds(task.metadata.name)], self.options.output_folder)

    def finished(self, model: Any, store: ResultStore) -> dict[str, TaskResult | None]:
        """Results in the store by task name; None for a task that is still to be run."""
        if not self.tasks:
            return {}
        prompts = resolve_prompts(getattr(model, "prompts", {}), self.instructions, self.tasks)
        return {
            task.metadata.name: store.finished(task.metadata.name, known_details(task, prompts_of(task, prompts)))
            for task in self.tasks
        }


class EvaluationSession:
    """A model, the tasks it is evaluated on, and the store of their results.

    Args:
        model: The model, loaded.
        source: Name, folder or Hub id it was loaded from; None for the bundled one.
        tasks: Tasks that this package evaluates itself.
        mteb: Tasks of mteb.
        store: Where results are looked up and added.
        batch_size: Texts in one pass of the model.
        options: Options that the model was loaded with.
        keep_rankings: Whether rankings are needed, which no store holds: `tasks` are then run again.
        on_result: Called after each task with its result and whether it was taken from the store.

    Raises:
        SettingsError: The model cannot do one of the tasks, or the store holds results of another model, other settings
            or other data.
    """

    def __init__(
        self,
        model: Any,
        source: str | None,
        tasks: Sequence[Task],
        mteb: MtebTasks,
        store: ResultStore,
        *,
        batch_size: int = 32,
        options: EncoderOptions | None = None,
        keep_rankings: bool = False,
        on_result: Callable[[TaskResult, bool], None],
    ) -> None:
        check_kinds(model, [task.name for task in tasks if not isinstance(task, RetrievalTask)] + mteb.names)
        self._model, self._source, self._tasks, self._mteb, self._store = model, source, tasks, mteb, store
        self._batch_size, self._on_result = batch_size, on_result
        store.start(_describe(model, source, options) | {"batch_size": batch_size})
        self._finished = {
            task.name: None if keep_rankings else store.finished(task.name, task.details) for task in tasks
        } | mteb.finished(model, store)

    def evaluate_tasks(self) -> list[TaskResult]:
        """Results of the tasks that are not of mteb, in their order."""
        return [
            self._take_over(task.name) or self._add(evaluate(self._model, task, batch_size=self._batch_size))
            for task in self._tasks
        ]

    def evaluate_mteb(self) -> list[TaskResult]:
        """Results of the tasks of mteb, in their order."""
        results = {name: result for name in self._mteb.names if (result := self._take_over(name))}
        missing = [task for task in self._mteb.tasks if task.metadata.name not in results]
        if missing:
            options = self._mteb.options
            for result in evaluate_mteb(
                self._model,
                missing,
                identify(self._model, self._source, options.model_name),
                instructions=self._mteb.instructions,
                output_folder=options.output_folder,
                batch_size=self._batch_size,
                overwrite=options.overwrite,
            ):
                results[result.task] = self._add(result)
        return [results[name] for name in self._mteb.names]

    def _take_over(self, name: str) -> TaskResult | None:
        result = self._finished[name]
        if result:
            self._on_result(result, True)
        return result

    def _add(self, result: TaskResult) -> TaskResult:
        self._store.add(result)
        self._on_result(result, False)
        return result


def _describe(model: Any, source: str | None, options: EncoderOptions | None) -> dict[str, Any]:
    """Settings of the model as `describe_model` returns them, always with a fingerprint.

    A model of sentence-transformers has none of its own; without one, a retrained model in the same folder would pass
    for the same. A hybrid, or a rescored ranking, is described as its model, and by its own settings.
    """
    if isinstance(model, Hybrid | Rescored):
        name = f"{model.system}:"
        settings = _describe(model.encoder, source.removeprefix(name) if source else None, options)
        return settings | {"model": f"{name}{settings['model']}", **model.settings}
    settings = describe_model(model, source, options)
    if settings["system"] == "sentence-transformers" and settings["fingerprint"] is None:
        settings["fingerprint"] = identify(model, source).revision
    return settings
