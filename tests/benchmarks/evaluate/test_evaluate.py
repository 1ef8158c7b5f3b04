"""Models and tasks by name, and several tasks in one go."""

import gzip
import logging
from pathlib import Path
from typing import Any

import pytest

import llm2comp_benchmarks
from llm2comp.errors import CorpusError
from llm2comp_benchmarks import evaluate_local
from llm2comp_benchmarks.systems.load import describe_model


def test_public_names() -> None:
    assert sorted(llm2comp_benchmarks.__all__) == [
        "ClassificationTask",
        "ClusteringTask",
        "PairTask",
        "RerankingTask",
        "RetrievalTask",
        "Samples",
        "StsTask",
        "Suite",
        "TaskResult",
        "evaluate",
        "evaluate_local",
        "evaluate_run",
        "read_beir",
        "read_classification",
        "read_clustering",
        "read_local",
        "read_pair_classification",
        "read_python_docs_task",
        "read_reranking",
        "read_run",
        "read_sts",
        "read_suite",
        "write_results",
        "write_run",
    ]
    assert all(hasattr(llm2comp_benchmarks, name) for name in llm2comp_benchmarks.__all__)


def test_a_data_folder_with_some_of_the_sets(
    fruit: Path, tmp_path: Path, encoder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "eval"
    (data / "stsb").mkdir(parents=True)
    (data / "stsb" / "test.tsv.gz").write_bytes(
        gzip.compress(b"sentence1\tsentence2\tscore\na b\ta b\t5\na b\tb c\t3\na b\tc d\t0\n")
    )
    fruit.rename(data / "xquad")
    with caplog.at_level(logging.WARNING):
        measured = evaluate_local(encoder, data)
    assert measured["stsb"] == {"cosine_spearman": pytest.approx(1)}
    assert measured["xquad"]["mrr_at_10"] == 1
    assert list(measured) == ["stsb", "xquad"]
    assert "left out: scifact, cranfield" in caplog.text


def test_a_data_folder_with_none_of_them(tmp_path: Path, encoder: Any) -> None:
    with pytest.raises(CorpusError, match=r"holds none of stsb/test\.tsv\.gz, scifact"):
        evaluate_local(encoder, tmp_path)


def test_a_model_is_described_by_what_it_has(encoder: Any) -> None:
    encoder.fingerprint = "abc"
    encoder.memory_tokens = 8
    described = describe_model(encoder, "folder")
    expected = {"model": "folder", "dimension": None, "fingerprint": "abc", "memory_tokens": 8, "max_tokens": None}
    assert {key: described[key] for key in expected} == expected
