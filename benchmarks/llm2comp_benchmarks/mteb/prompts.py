"""Prompts of mteb's tasks: those of the model, instructions for single tasks, and a record of those used."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llm2comp.atomic import write_output
from llm2comp.checked_json import JsonFormat
from llm2comp.errors import SettingsError, one_line
from llm2comp_benchmarks.mteb.model import import_mteb

__all__ = ["UsedPrompts", "leaves", "prompts_of", "read_instructions", "resolve_prompts"]

_PROMPTS_FILE = "llm2comp_prompts.json"
_FORMAT = JsonFormat("record of prompts", SettingsError, "remove it, or give another --output-folder")
"""File beside mteb's `results` folder; mteb itself does not record the prompts of a result."""


def read_instructions(path: str | Path) -> dict[str, str]:
    """Instructions of a YAML or JSON file, by task (`SciFact`), type (`STS`) or mteb's longer key (`SciFact-query`).

    Raises:
        SettingsError: The file cannot be read, or is not a mapping of text to text.
    """
    try:
        instructions = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: no instructions can be read ({one_line(error, limit=200)})") from error
    if not isinstance(instructions, dict) or not all(
        isinstance(key, str) and isinstance(text, str) for key, text in instructions.items()
    ):
        raise SettingsError(
            f"{path}: expected a mapping of task to instruction, such as SciFact: 'Find evidence for the claim: '"
        )
    return instructions


def resolve_prompts(
    model_prompts: Mapping[str, str | None], instructions: Mapping[str, str], tasks: Sequence[Any]
) -> dict[str, str]:
    """Prompts by mteb's keys: those of the model, overridden by the instructions.

    An instruction for a retrieval task or type is put before its queries only; for other tasks before every text.

    Raises:
        SettingsError: An instruction names no task or type of mteb.
    """
    prompts = {key: prompt or "" for key, prompt in model_prompts.items()}
    for key, text in instructions.items():
        base, _, side = key.rpartition("-")
        if key in ("query", "document") or (side in ("query", "document") and _kind(base, tasks)):
            prompts[key] = text
        elif kind := _kind(key, tasks):
            for name in (key, *_parts(key, tasks)):
                if kind == "retrieval":
                    prompts.pop(name, None)
                prompts[f"{name}-query" if kind == "retrieval" else name] = text
        else:
            raise SettingsError(
                f"an instruction is for {key!r}, which is no task and no type of task in mteb; types are Retrieval, "
                "STS, Classification …"
            )
    return prompts


def _kind(name: str, tasks: Sequence[Any]) -> str | None:
    """`retrieval` for a task or type with queries and documents, `other` for another one, None for no task or type."""
    mteb = import_mteb()
    from mteb.abstasks.task_metadata import _TASKTYPE2SIMPLIFIEDTASKTYPE

    kind = next((task.metadata.type for task in tasks if task.metadata.name == name), name)
    if kind not in _TASKTYPE2SIMPLIFIEDTASKTYPE:
        try:
            kind = mteb.get_task(name).metadata.type
        except KeyError:
            return None
    return "retrieval" if _TASKTYPE2SIMPLIFIEDTASKTYPE.get(kind) == "retrieval" else "other"


def _parts(name: str, tasks: Sequence[Any]) -> list[str]:
    """Names of the tasks that an aggregate task consists of."""
    return [
        part.metadata.name for task in tasks if task.metadata.name == name for part in leaves(task) if part is not task
    ]


def leaves(task: Any) -> list[Any]:
    """The tasks that an aggregate task consists of; for another task the task itself."""
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    return (
        [leaf for part in task.metadata.tasks for leaf in leaves(part)]
        if isinstance(task, AbsTaskAggregate)
        else [task]
    )


def prompts_of(task: Any, prompts: dict[str, str]) -> dict[str, str | None]:
    """Prompts of a task: of `query` and `document` for retrieval, of `text` for others; None where there is none."""
    from mteb.models.abs_encoder import get_prompt_name
    from mteb.types import PromptType

    sides = (
        {"query": PromptType.query, "document": PromptType.document}
        if _kind(task.metadata.name, [task]) == "retrieval"
        else {"text": None}
    )
    return {side: prompts.get(get_prompt_name(prompts, task.metadata, kind) or "") for side, kind in sides.items()}


class UsedPrompts:
    """The file that records the prompts of each result of a folder."""

    def __init__(self, folder: Path, meta: Any) -> None:
        self._path = folder / _PROMPTS_FILE
        self._model = f"{meta.name}@{meta.revision}"
        self._meta = meta

    def check(self, cache: Any, tasks: Sequence[Any], prompts: dict[str, str]) -> None:
        """Checks that the results in the folder were made with the prompts of this run.

        Raises:
            SettingsError: One was not; the message names the first such task.
        """
        known = self._read().get(self._model, {})
        for task in tasks:
            name, current = task.metadata.name, prompts_of(task, prompts)
            if known.get(name, current) != current and cache.load_task_result(name, self._meta) is not None:
                raise SettingsError(
                    f"{self._path.parent}: its result of {name} was made with other instructions "
                    f"({json.dumps(known[name], ensure_ascii=False)}); "
                    "give another --output-folder, or --overwrite"
                )

    def note(self, task: Any, prompts: dict[str, str]) -> None:
        """Records the prompts of a finished task."""
        everything = self._read()
        everything.setdefault(self._model, {})[task.metadata.name] = prompts_of(task, prompts)
        write_output(self._path, [json.dumps(everything, indent=2, ensure_ascii=False), "\n"])

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.is_file():
            return {}
        return _FORMAT.read(self._path)
