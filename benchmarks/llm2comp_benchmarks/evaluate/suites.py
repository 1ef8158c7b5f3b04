"""Suites: lists of tasks in JSON files, by path or by their name in mteb."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm2comp.checked_json import JsonFormat, take
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.mteb.tasks import read_mteb_task
from llm2comp_benchmarks.tasks.classification import ClassificationTask, read_classification
from llm2comp_benchmarks.tasks.clustering import ClusteringTask, read_clustering
from llm2comp_benchmarks.tasks.pair_classification import PairTask, read_pair_classification
from llm2comp_benchmarks.tasks.python_docs import read_python_docs_task
from llm2comp_benchmarks.tasks.reranking import RerankingTask, read_reranking
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask, read_beir
from llm2comp_benchmarks.tasks.sts import StsTask, read_sts

__all__ = ["SUITES", "Suite", "SuiteTask", "Task", "read_suite"]

Task = RetrievalTask | StsTask | ClassificationTask | ClusteringTask | PairTask | RerankingTask
"""A task that is not of mteb; its data have been read."""

SUITES = ("beir", "local", "paper")
"""Names of the suites in the package."""

_FOLDER = Path(__file__).parents[1] / "suites"
_FILE_READERS: dict[str, Callable[[str | Path], Task]] = {
    "sts": read_sts,
    "clustering": read_clustering,
    "pair-classification": read_pair_classification,
    "reranking": read_reranking,
}
_KINDS = ("retrieval", "classification", *_FILE_READERS)
_FORMAT = JsonFormat("suite", SettingsError, 'expected {"name": …, "about": …, "tasks": [{"kind": …, "path": …}, …]}')


@dataclass(frozen=True)
class SuiteTask:
    """One entry of a suite; exactly one of path, mteb and python_docs is given.

    Attributes:
        kind: retrieval, sts, classification, clustering, pair-classification or reranking.
        path: A folder (retrieval, classification) or file (all others) under the folder of data.
        mteb: A task of mteb by its name.
        python_docs: The retrieval task of `read_python_docs_task`: "all" or "standard".
        name: Key of the results; None: the name that the reader gives.
        split: With path, for retrieval and classification.
        subsets: With mteb, parts of a multilingual task; None: all.
        splits: With mteb; None: its usual splits.
    """

    kind: str
    path: str | None = None
    mteb: str | None = None
    python_docs: str | None = None
    name: str | None = None
    split: str = "test"
    subsets: list[str] | None = None
    splits: list[str] | None = None

    def read(self, data: str | Path) -> Task:
        """The task, read and checked; for entries that are not of mteb.

        Args:
            data: Folder that `path` starts from.

        Raises:
            CorpusError: The data are missing or malformed.
        """
        task: Task
        if self.python_docs:
            task = read_python_docs_task("standard" if self.python_docs == "standard" else "all")
        elif self.kind == "retrieval":
            task = read_beir(Path(data) / str(self.path), split=self.split)
        elif self.kind == "classification":
            task = read_classification(Path(data) / str(self.path), split=self.split)
        else:
            task = _FILE_READERS[self.kind](Path(data) / str(self.path))
        return replace(task, name=self.name) if self.name else task


@dataclass(frozen=True)
class Suite:
    """A list of tasks, its name, and its purpose."""

    name: str
    about: str
    tasks: tuple[SuiteTask, ...]

    def read_own(self, data: str | Path | None) -> list[Task]:
        """The tasks that are not of mteb, read and checked.

        Raises:
            SettingsError: They need a folder of data, and `data` is None.
            CorpusError: One is missing or malformed.
        """
        first = next((entry.path for entry in self.tasks if entry.path), None)
        if first and data is None:
            raise SettingsError(
                f"the suite {self.name} has tasks in a folder of data ({first} and others); give that folder with "
                "--data"
            )
        return [entry.read(data or "") for entry in self.tasks if not entry.mteb]

    def read_mteb(self) -> list[Any]:
        """The tasks of mteb; their data are not loaded.

        Raises:
            SettingsError: There is no such task, or it has no such subset or split.
        """
        return [
            read_mteb_task(entry.mteb, subsets=entry.subsets, splits=entry.splits) for entry in self.tasks if entry.mteb
        ]


def read_suite(source: str) -> Suite:
    """The suite with a name in `SUITES`, or in a JSON file.

    Such a file holds `{"name": …, "about": …, "tasks": [{"kind": …, "path" or "mteb" or "python_docs": …}, …]}`.

    Raises:
        SettingsError: There is no such suite or file, or it is malformed; the message says which entry.
    """
    file = _FOLDER / f"{source}.json" if source in SUITES else Path(source)
    if not os.path.exists(file):
        raise SettingsError(f"{source}: no such suite; give {', '.join(SUITES)} or a JSON file")
    record = _FORMAT.read(file)
    with _FORMAT.parsing(file):
        if not take(record, "tasks", list):
            raise ValueError("it has no tasks")
    tasks = tuple(_entry(entry, f"{source}: task {number}") for number, entry in enumerate(record["tasks"], 1))
    return Suite(str(record.get("name", file.stem)), str(record.get("about", "")), tasks)


def _entry(record: Any, place: str) -> SuiteTask:
    known = SuiteTask.__dataclass_fields__
    if not isinstance(record, dict) or not record.keys() <= known.keys():
        raise SettingsError(f"{place}: {json.dumps(record):.80} has other keys than {', '.join(known)}")
    if record.get("kind") not in _KINDS:
        raise SettingsError(f"{place}: the kind is {record.get('kind')!r}, expected one of {', '.join(_KINDS)}")
    lists = [record[key] for key in ("subsets", "splits") if record.get(key) is not None]
    if not all(isinstance(value, list) and value and all(isinstance(item, str) for item in value) for value in lists):
        raise SettingsError(f"{place}: subsets and splits are lists of names")
    if not all(isinstance(value, str) for key, value in record.items() if key not in ("subsets", "splits")):
        raise SettingsError(f"{place}: expected text for everything but subsets and splits")
    if sum(key in record for key in ("path", "mteb", "python_docs")) != 1:
        raise SettingsError(f"{place}: expected exactly one of path, mteb and python_docs")
    if "mteb" in record and record.keys() & {"name", "split"} or "mteb" not in record and lists:
        raise SettingsError(f"{place}: subsets and splits go with mteb, name and split with path or python_docs")
    if record.get("python_docs", "all") not in ("all", "standard"):
        raise SettingsError(f"{place}: python_docs is {record['python_docs']!r}, expected all or standard")
    return SuiteTask(**record)
