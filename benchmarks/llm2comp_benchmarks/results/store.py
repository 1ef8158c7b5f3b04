"""A result file written task by task, so that an interrupted run continues where it stopped."""

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
)  # settings that do not change the measurement, or are compared separately
_MADE_WITH = ("versions", "hardware", "commit")


class ResultStore:
    """The results of one model: those in an existing file, and those added.

    Args:
        path: The file, which need not exist. None: nothing is read or written.
        overwrite: Ignore the existing file.

    Raises:
        LLM2CompError: The file exists and is not a result file.
    """

    def __init__(self, path: Path | None, *, overwrite: bool = False) -> None:
        self.path = path
        self._existing = read_result_file(path) if path and path.exists() and not overwrite else None
        self._settings: dict[str, Any] = {}
        self._results: dict[str, TaskResult] = {}
        self._keeps = True

    def holds(self, name: str) -> bool:
        """Whether the existing file has a task of this name, of any model."""
        return self._existing is not None and name in self._existing.tasks

    def start(self, settings: dict[str, Any], *, keep: bool = True) -> None:
        """Sets the model and settings of the results; call it before `finished` and `add`.

        Args:
            settings: The model and how it is evaluated.
            keep: Whether existing results count as finished. In any case they must be of the same model, and stay in
                the file until `add` replaces those of the same name.

        Raises:
            SettingsError: The file holds results of another model, or made with other settings.
        """
        self._settings = settings = json.loads(json.dumps(settings))  # as a file holds them
        if self._existing:
            _check_settings(self._existing, settings)
            self._results, self._keeps = _results_of(self._existing, settings), keep

    def finished(self, name: str, details: dict[str, Any]) -> TaskResult | None:
        """The existing result of a task; None if there is none, or it lacks samples (mteb's tasks may).

        Args:
            name: Name of the task.
            details: Details of the task that are known before it runs.

        Raises:
            SettingsError: The existing result is of other data.
        """
        result = self._results.get(name) if self._keeps else None
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
        """Adds a result and writes the file."""
        self._results[result.task] = result
        if self.path:
            record = result_record(list(self._results.values()), self._settings)
            analysis = self._existing.beside.get("analysis") if self._existing else None
            write_record(self.path, record | ({"analysis": analysis} if analysis else {}))


_WAYS_OUT = "give another file, or --overwrite"


def _check_settings(existing: ResultFile, settings: dict[str, Any]) -> None:
    before = existing.settings
    if "encoder" in settings:
        before = {"encoder": {}, **before}  # older files were made with the defaults
    known_by = "fingerprint" if before.get("fingerprint") and settings.get("fingerprint") else "model"
    if before.get(known_by) != settings.get(known_by):
        name, other = before.get("model") or before.get("run"), settings.get("model") or settings.get("run")
        raise SettingsError(
            f"{existing.path}: holds results of another model, {name} ({before.get(known_by)!s:.16}), not of {other}; "
            f"{_WAYS_OUT}"
        )
    changed = [
        key for key in before.keys() & settings.keys() if key not in _MAY_CHANGE and before[key] != settings[key]
    ]
    if changed or ("run" in before) != ("run" in settings):
        sides = ({key: source[key] for key in sorted(changed)} for source in (before, settings))
        raise SettingsError(
            f"{existing.path}: holds results made with other settings: {' now '.join(map(_short, sides))}; {_WAYS_OUT}"
        )


def _results_of(existing: ResultFile, settings: dict[str, Any]) -> dict[str, TaskResult]:
    """Results of the file. Where versions, hardware or batch size differ now, their details keep the old ones."""
    now = result_record([], {})
    made_with = {key: existing.beside[key] for key in _MADE_WITH if existing.beside.get(key) != now[key]}
    if existing.settings.get("batch_size") != settings.get("batch_size"):
        made_with["batch_size"] = existing.settings.get("batch_size")
    seconds = existing.beside.get("seconds") or {}
    results = {}
    for name, task in existing.tasks.items():
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
