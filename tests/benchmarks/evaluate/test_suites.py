"""Suites: those that are shipped name what they say, and one that cannot be read says which entry is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError, SettingsError
from llm2comp_benchmarks import RetrievalTask, StsTask, read_suite
from llm2comp_benchmarks.evaluate import suites as module
from llm2comp_benchmarks.evaluate.suites import SUITES
from llm2comp_benchmarks.report.paper import read_paper
from tests.paths import ROOT

FIGURES = read_paper()
TYPES = {
    "retrieval": "Retrieval",
    "sts": "STS",
    "classification": "Classification",
    "clustering": "Clustering",
    "pair-classification": "PairClassification",
    "reranking": "Reranking",
}


def write(file: Path, *tasks: Any) -> str:
    file.write_text(json.dumps({"name": "mine", "about": "", "tasks": tasks}), encoding="utf-8")
    return str(file)


class TestShipped:
    def test_names(self) -> None:
        assert {path.stem for path in (Path(module.__file__).parents[1] / "suites").glob("*.json")} == set(SUITES)
        assert [read_suite(name).name for name in SUITES] == list(SUITES)

    @pytest.mark.parametrize("name", SUITES)
    def test_mteb_has_the_tasks_and_calls_their_kinds_the_same(self, name: str) -> None:
        pytest.importorskip("mteb", reason="needs the extra eval")
        suite = read_suite(name)
        kinds = [entry.kind for entry in suite.tasks if entry.mteb]
        assert [task.metadata.type for task in suite.read_mteb()] == [TYPES[kind] for kind in kinds]

    def test_beir_is_what_mteb_means_by_it(self) -> None:
        mteb = pytest.importorskip("mteb", reason="needs the extra eval")
        theirs, ours = mteb.get_benchmark("BEIR").tasks, read_suite("beir").read_mteb()
        assert {(task.metadata.name, *task.eval_splits) for task in ours} == {
            (task.metadata.name, *task.eval_splits) for task in theirs
        }

    def test_the_paper_reports_english_pairs_only(self) -> None:
        pytest.importorskip("mteb", reason="needs the extra eval")
        (sts17,) = (task for task in read_suite("paper").read_mteb() if task.metadata.name == "STS17")
        assert sts17.hf_subsets == ["en-en"]

    def test_the_figures_of_the_paper_are_of_its_tasks_and_give_its_averages(self) -> None:
        names = [entry.mteb for entry in read_suite("paper").tasks]
        assert len(names) == 14
        with_tasks = [system for system in FIGURES["systems"] if system["tasks"]]
        assert [(system["system"], system["average"]) for system in with_tasks] == [
            ("LLM2Comp KL", 52.49),
            ("LLM2Comp KL", 66.78),
        ]
        for system in with_tasks:
            assert list(system["tasks"]) == names
            assert sum(system["tasks"].values()) / 14 == pytest.approx(system["average"], abs=0.006)

    def test_local_reads_what_stands_in_a_folder(self, fruit: Path, tmp_path: Path) -> None:
        suite = read_suite("local")
        assert [entry.kind for entry in suite.tasks].count("retrieval") == 4
        data = tmp_path / "data"
        data.mkdir()
        fruit.rename(data / "xquad")
        with pytest.raises(CorpusError, match=r"data/stsb/test\.tsv\.gz: no such file"):
            suite.read_own(data)
        with pytest.raises(SettingsError, match=r"the suite local has tasks in a folder of data .* --data"):
            suite.read_own(None)


class TestFiles:
    def test_tasks_by_path(self, fruit: Path, tmp_path: Path) -> None:
        (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n", encoding="utf-8")
        entries = {"path": fruit.name, "kind": "retrieval", "name": "fruit"}, {"path": "pairs.tsv", "kind": "sts"}
        tasks = read_suite(write(tmp_path / "suite.json", *entries)).read_own(tmp_path)
        assert [(task.name, type(task)) for task in tasks] == [("fruit", RetrievalTask), ("pairs", StsTask)]

    def test_the_example_in_the_guide(self, tmp_path: Path) -> None:
        guide = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"```json\n(.*?)```", guide, re.DOTALL)
        (tmp_path / "suite.json").write_text(example, encoding="utf-8")
        suite = read_suite(str(tmp_path / "suite.json"))
        assert [(entry.kind, entry.path or entry.mteb) for entry in suite.tasks] == [
            ("retrieval", "scifact"),
            ("classification", "banking77"),
            ("sts", "STS17"),
        ]

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("scifact", r'task 2: "scifact" has other keys than kind, path'),
            ({"path": "x", "kind": "sts", "metric": "y"}, r"task 2: .* has other keys than"),
            ({"path": "x"}, r"task 2: the kind is None, expected one of retrieval, classification, sts"),
            ({"path": "x", "kind": "search"}, r"task 2: the kind is 'search'"),
            ({"kind": "sts"}, r"task 2: expected exactly one of path, mteb and python_docs"),
            ({"kind": "sts", "path": "x", "mteb": "STS12"}, r"task 2: expected exactly one"),
            ({"kind": "sts", "path": 1}, r"task 2: expected text"),
            ({"kind": "sts", "mteb": "STS17", "subsets": "en-en"}, r"task 2: subsets and splits are lists"),
            ({"kind": "sts", "path": "x", "subsets": ["en-en"]}, r"task 2: subsets and splits go with mteb"),
            ({"kind": "sts", "mteb": "STS12", "name": "x"}, r"task 2: .* name and split with path"),
            ({"kind": "retrieval", "python_docs": "some"}, r"task 2: python_docs is 'some'"),
        ],
    )
    def test_bad_entries(self, tmp_path: Path, entry: Any, message: str) -> None:
        suite = write(tmp_path / "suite.json", {"path": "x", "kind": "sts"}, entry)
        with pytest.raises(SettingsError, match=rf"suite\.json: {message}"):
            read_suite(suite)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "not JSON"),
            ("[]", "not a valid suite"),
            ('{"tasks": []}', "not a valid suite"),
            (None, "no such suite"),
        ],
    )
    def test_no_suite(self, tmp_path: Path, content: str | None, message: str) -> None:
        if content:
            (tmp_path / "suite.json").write_text(content, encoding="utf-8")
        with pytest.raises(SettingsError, match=message):
            read_suite(str(tmp_path / "suite.json"))

    def test_tasks_that_mteb_does_not_have(self, tmp_path: Path) -> None:
        pytest.importorskip("mteb", reason="needs the extra eval")
        with pytest.raises(SettingsError, match="mteb has no task of this name: .*Did you mean: 'SciFact'"):
            read_suite(write(tmp_path / "suite.json", {"mteb": "SciFct", "kind": "retrieval"})).read_mteb()
        with pytest.raises(SettingsError, match="STS17 has none of the subsets xx-yy"):
            read_suite(
                write(tmp_path / "suite.json", {"mteb": "STS17", "kind": "sts", "subsets": ["xx-yy"]})
            ).read_mteb()
