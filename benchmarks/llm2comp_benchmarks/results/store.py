"""A result file that grows by one task at a time, so that a run that was cut off goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.results.read import ResultFile, read_result_file
from llm2comp_benchmarks.results.record import TaskResult, result_record, write_record

__all__ = ["ResultStore"]

_OF_THE_MODEL = ("model", "fingerprint")
_MAY_CHANGE = (
    "tasks",
    "batch_size",
    *_OF_THE_MODEL,
)  # settings that do not make it another measurement, or are compared on their own
_MADE_WITH = ("versions", "hardware", "commit")


class ResultStore:
    """The results of one model: those that a file holds already, and those that are added.

    Args:
        path: The file; it need not be there. None: nothing is read or written.
        overwrite: Leave what the file holds out of account.

    Raises:
        LLM2CompError: The file is there and is no result file.
    """

    def __init__(self, path: Path | None, *, overwrite: bool = False) -> None:
        self.path = path
        self._found = read_result_file(path) if path and path.exists() and not overwrite else None
        self._settings: dict[str, Any] = {}
        self._results: dict[str, TaskResult] = {}

    def holds(self, name: str) -> bool:
        """Whether the file has a task of this name, of whatever model."""
        return self._found is not None and name in self._found.tasks

    def start(self, settings: dict[str, Any], *, keep: bool = True) -> None:
        """Says what the results are of; from here on they can be looked up and added.

        Args:
            settings: The model and how it is evaluated.
            keep: Whether the file's results count as finished; else they only have to be of the same model.

        Raises:
            SettingsError: The file holds results of another model, or made with other settings.
        """
        self._settings = settings = json.loads(json.dumps(settings))  # as they are in a file
        if self._found:
            _check_settings(self._found, settings)
            if keep:
                self._results = _results_of(self._found, settings)

    def finished(self, name: str, details: dict[str, Any]) -> TaskResult | None:
        """The result of a task, if the file has it with its samples, which not all of mteb's tasks have.

        Args:
            name: The task.
            details: What is known of it before it is run.

        Raises:
            SettingsError: The file's result is of other data.
        """
        result = self._results.get(name)
        if result is None or not (result.samples or result.details.get("benchmark") == "mteb"):
            return None
        if changed := [key for key, value in details.items() if not _same(key, result.details.get(key), value)]:
            before, now = ({key: source.get(key) for key in changed} for source in (result.details, details))
            raise SettingsError(
                f"{self.path}: its result of {name} was made with other instructions or data: {_short(before)}, now "
                f"{_short(now)}; {_WAYS_OUT}"
            )
        return result

    def add(self, result: TaskResult) -> None:
        """Takes a result in and writes the file."""
        self._results[result.task] = result
        if self.path:
            record = result_record(list(self._results.values()), self._settings)
            analysis = self._found.beside.get("analysis") if self._found else None
            write_record(self.path, record | ({"analysis": analysis} if analysis else {}))


_WAYS_OUT = "give another file, or --overwrite"


def _check_settings(found: ResultFile, settings: dict[str, Any]) -> None:
    before = found.settings
    known_by = "fingerprint" if before.get("fingerprint") and settings.get("fingerprint") else "model"
    if before.get(known_by) != settings.get(known_by):
        name, other = before.get("model") or before.get("run"), settings.get("model") or settings.get("run")
        raise SettingsError(
            f"{found.path}: holds results of another model, {name} ({before.get(known_by)!s:.16}), not of {other}; "
            f"{_WAYS_OUT}"
        )
    changed = [
        key for key in before.keys() & settings.keys() if key not in _MAY_CHANGE and before[key] != settings[key]
    ]
    if changed or ("run" in before) != ("run" in settings):
        sides = ({key: source[key] for key in sorted(changed)} for source in (before, settings))
        raise SettingsError(
            f"{found.path}: holds results made with other settings: {' now '.join(map(_short, sides))}; {_WAYS_OUT}"
        )


def _results_of(found: ResultFile, settings: dict[str, Any]) -> dict[str, TaskResult]:
    """The file's results; where something about the run is different now, their details say what they were made with."""
    now = result_record([], {})
    made_with = {key: found.beside[key] for key in _MADE_WITH if found.beside.get(key) != now[key]}
    if found.settings.get("batch_size") != settings.get("batch_size"):
        made_with["batch_size"] = found.settings.get("batch_size")
    seconds = found.beside.get("seconds") or {}
    results = {}
    for name, task in found.tasks.items():
        result = TaskResult(name, task.metrics, task.details, seconds.get(name, 0.0), samples=task.samples)
        results[name] = replace(result, details={"made_with": made_with} | result.details) if made_with else result
    return results


def _same(key: str, before: Any, now: Any) -> bool:
    if key == "source" and isinstance(before, str):
        return Path(before).resolve() == Path(now).resolve()
    return bool(before == json.loads(json.dumps(now)))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
