"""The index benchmark: its vectors, its measures, and what it writes."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.cost.index import search as index_search
from llm2comp_benchmarks.cost.index.data import draw_vectors, open_set, write_synthetic
from llm2comp_benchmarks.cost.index.jobs import JOBS
from llm2comp_benchmarks.cost.index.memory import measure_memory
from llm2comp_benchmarks.cost.index.ratios import RATIOS, format_record, ratios_of
from llm2comp_benchmarks.cost.index.reading import FORMATS, measure_reading
from llm2comp_benchmarks.cost.index.run import IndexBenchmark, effort_parameters, run_benchmark, same_training
from llm2comp_benchmarks.cost.index.search import exact_scores, recall_of
from llm2comp_benchmarks.cost.processes import run_process, watch_process
from tests.paths import RESULTS

MEMORY = RESULTS / "index-memory.json"
FILES = sorted(set(RESULTS.glob("index-*.json")) - {MEMORY})


def _draw(rows: int, seed: int = 0) -> Any:
    return np.concatenate(list(draw_vectors(rows, 32, seed=seed)))


def test_synthetic_vectors_are_unit_vectors_and_the_same_for_the_same_seed() -> None:
    vectors = _draw(9000)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[:8192], np.concatenate(list(draw_vectors(8192, 32, seed=0))))
    assert not np.array_equal(vectors, _draw(9000, seed=1))


def test_synthetic_queries_lie_among_the_vectors_but_are_none_of_them() -> None:
    vectors, queries = _draw(4000), _draw(50, seed=1)
    nearest = (queries @ vectors.T).max(axis=1)
    noise = np.random.default_rng(0).standard_normal((50, 32)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert np.median(nearest) > np.median((noise @ vectors.T).max(axis=1)) + 0.2
    assert nearest.max() < 1 - 1e-5


def test_synthetic_clusters_differ_in_size() -> None:
    vectors = _draw(2000)
    neighbours = np.sort((vectors @ vectors.T > 0.9).sum(axis=1))
    assert neighbours[-200:].mean() > 5 * neighbours[:200].mean()


def test_a_set_is_found_again_with_as_many_documents_as_vectors(tmp_path: Path) -> None:
    made = write_synthetic(tmp_path, 100, 32, queries=7)
    opened = open_set(tmp_path)
    assert opened == made
    assert opened.map_vectors().shape == (100, 32)
    assert opened.load("queries").shape == (7, 32)
    assert [document.id for document in read_corpus(tmp_path / "documents.jsonl")] == (
        tmp_path / "ids.txt"
    ).read_text().splitlines()
    assert len(set((tmp_path / "ids.txt").read_text().splitlines())) == 100
    assert open_set(tmp_path / "nothing") is None


def test_exact_scores_are_those_of_brute_force_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = _draw(500), _draw(9, seed=1)
    monkeypatch.setattr(index_search, "_BLOCK_BYTES", 9 * 4 * 64)
    expected = -np.sort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :10]
    np.testing.assert_allclose(exact_scores(vectors, queries, 10), expected, atol=1e-6)


def test_any_of_equally_good_rows_counts_and_a_row_counts_once() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1]], np.float32)
    query = np.array([1, 0], np.float32)
    truth = exact_scores(vectors, query[None], 2)[0]
    assert recall_of(vectors, query, np.array([0, 1]), truth) == 1
    assert recall_of(vectors, query, np.array([0, 2]), truth) == 1
    assert recall_of(vectors, query, np.array([0, 0]), truth) == 0.5
    assert recall_of(vectors, query, np.array([3, -1]), truth) == 0


@pytest.mark.parametrize("kind", ["flat", "hnsw", "IVF8,Flat"])
def test_ours_and_plain_faiss_are_built_opened_and_compared(kind: str, tmp_path: Path) -> None:
    vectors = str(tmp_path / "set")
    settings = {"corpus": None, "model": None, "rows": 600, "dimension": 32, "queries": 20, "seed": 0}
    prepared = JOBS["prepare"](folder=vectors, **settings)
    targets = {"memory": None, "latency_ms": None, "recall": 0.9, "k": 5}
    ours = JOBS["build_ours"](vectors=vectors, output=str(tmp_path / "ours"), options={"type": kind}, targets=targets)
    same = same_training(ours["type"], prepared["rows"], prepared["dimension"])
    plain = JOBS["build_faiss"](vectors=vectors, output=str(tmp_path / "plain"), **same)
    file = str(tmp_path / "plain" / "faiss.index")
    parameters = effort_parameters(ours["effort"])
    others = {"plain": {"file": file, "parameters": parameters}}
    compared = JOBS["compare"](
        vectors=vectors, ours={"ours": {"folder": str(tmp_path / "ours")}}, plain=others, k=5, rounds=1
    )
    assert plain["type"] == ours["type"]
    assert compared["ours"]["recall"] == pytest.approx(compared["plain"]["recall"], abs=0.1)
    if kind == "flat":
        assert compared["ours"]["recall"] == compared["plain"]["recall"] == 1
    for one in compared.values():
        assert 0 < one["median_ms"] <= one["p99_ms"]
        assert one["median_ms"] < one["median_ms_with_documents"]
    assert sum(ours["phases"].values()) <= ours["build_seconds"]
    assert ours["vector_bytes"] >= 600 * 32 * 4
    for opened in (
        JOBS["open_ours"](folder=str(tmp_path / "ours"), vectors=vectors),
        JOBS["open_faiss"](file=file, vectors=vectors),
    ):
        assert 0 < opened["open_seconds"] <= opened["first_answer_seconds"]


def test_the_effort_of_equal_latency_is_the_best_that_is_as_quick(tmp_path: Path) -> None:
    vectors, ours, plain = str(tmp_path / "set"), str(tmp_path / "ours"), str(tmp_path / "plain")
    JOBS["prepare"](folder=vectors, corpus=None, model=None, rows=20_000, dimension=64, queries=50, seed=0)
    JOBS["build_ours"](
        vectors=vectors, output=ours, options={"type": "IVF64,SQfp16"}, targets={"recall": 0.5, "latency_ms": 1000.0}
    )
    JOBS["build_faiss"](vectors=vectors, output=plain, factory="IVF1,Flat", trained_on=100, ef_construction=None)
    exact = {"file": f"{plain}/faiss.index", "parameters": None}
    effort = JOBS["equal_effort"](vectors=vectors, folder=ours, plain=exact, k=5)
    searches = {"tuned": {"folder": ours}, "equal": {"folder": ours, "effort": effort}}
    compared = JOBS["compare"](vectors=vectors, ours=searches, plain={"exact": exact}, k=5, rounds=1)
    assert compared["exact"]["recall"] == 1
    assert compared["equal"]["recall"] > compared["tuned"]["recall"]


def test_storing_vectors_alone_leaves_nothing(tmp_path: Path) -> None:
    JOBS["prepare"](folder=str(tmp_path / "set"), corpus=None, model=None, rows=600, dimension=32, queries=20, seed=0)
    assert (
        JOBS["store_vectors"](vectors=str(tmp_path / "set"), output=str(tmp_path / "indexes" / "bare"))["seconds"] > 0
    )
    assert not list((tmp_path / "indexes").iterdir())


def test_ratios_are_ours_over_theirs_and_leave_out_what_they_do_not_do() -> None:
    times = {
        "median_ms": 2.0,
        "median_ms_with_documents": 3.0,
        "p99_ms": 8.0,
        "open_seconds": 0.5,
        "search_peak_bytes": 300,
        "peak_bytes": 500,
    }
    phases = {"write": 1.0, "choose": 6.0, "structure": 9.0, "measure": 4.0}
    ours = {
        **times,
        "recall": 0.97,
        "build_seconds": 20.0,
        "store_vectors_seconds": 0.5,
        "phases": phases,
        "vector_bytes": 150,
    }
    other = {**{name: value / 2 for name, value in times.items()}, "recall": 0.95, "build_seconds": 10.0, "bytes": 100}
    ratios = ratios_of(ours, other)
    assert ratios["recall_gain"] == pytest.approx(0.02)
    assert (ratios["build"], ratios["pipeline"], ratios["pipeline_bare"], ratios["structure"]) == (2.0, 1.0, 0.95, 0.9)
    assert set(ratios) == {*RATIOS, "recall_gain"}
    assert (ratios["vector_bytes"], ratios["search"], ratios["search_bare"]) == (1.5, 2.0, 3.0)


def test_a_part_that_fails_is_one_error_with_its_last_words() -> None:
    with pytest.raises(LLM2CompError, match="^boil water: failed: ValueError: too warm$"):
        run_process("boil water", [sys.executable, "-c", "raise ValueError('too warm')"], threads=1)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"rows": 0}, "rows is 0"), ({"peer_python": Path("no/python")}, "no such program")]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        IndexBenchmark(tmp_path, **wrong)


@pytest.mark.slow
def test_a_whole_run_says_what_it_rests_on_and_names_no_folder(tmp_path: Path) -> None:
    lines: list[str] = []
    record = run_benchmark(
        IndexBenchmark(tmp_path, rows=800, dimension=16, types=("flat",), queries=10, rounds=1), tell=lines.append
    )
    assert lines[:3] == ["prepare vectors", "store vectors without documents", "build llm2comp flat"]
    assert record["llm2comp flat"]["recall"] == record["plain FAISS flat"]["recall"] == 1
    assert record["ratios"]["flat"] == ratios_of(record["llm2comp flat"], record["plain FAISS flat"])
    assert record["hardware"]["threads"] == 1
    assert record["settings"]["vectors"]["rows"] == 800
    assert str(tmp_path) not in json.dumps(record)
    assert not list((tmp_path / "indexes").iterdir())
    assert "plain FAISS flat" in format_record(record)


@pytest.mark.slow
def test_a_corpus_is_encoded_once_by_each_model(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"_id": f"d{row}", "text": f"Ticket {row}\nis lost"}) + "\n" for row in range(700)),
        encoding="utf-8",
    )
    settings = {
        "folder": str(tmp_path / "set"),
        "corpus": str(corpus),
        "model": None,
        "rows": 1,
        "dimension": 1,
        "queries": 20,
        "seed": 0,
    }
    made = JOBS["prepare"](**settings)
    assert (made["rows"], made["dimension"]) == (700 - 20 - 300, 256)
    vectors = tmp_path / "set" / "vectors" / "vectors.npy"
    written = vectors.stat().st_mtime_ns
    assert JOBS["prepare"](**settings) == made
    assert vectors.stat().st_mtime_ns == written
    described = tmp_path / "set" / "set.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "fingerprint": "another"}))
    assert JOBS["prepare"](**settings)["fingerprint"] == made["fingerprint"]
    assert vectors.stat().st_mtime_ns > written


def test_an_environment_without_autofaiss_is_found_before_anything_is_built(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(LLM2CompError, match="open autofaiss: failed: .*autofaiss"):
        run_benchmark(IndexBenchmark(tmp_path, peer_python=Path(sys.executable)), tell=lines.append)
    assert not lines


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_ratios_in_results_are_those_of_their_entries(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["ratios"]
    for kind, ratios in record["ratios"].items():
        ours, other = (
            record[f"llm2comp {kind}"],
            record["autofaiss" if kind.startswith("auto") else f"plain FAISS {kind}"],
        )
        assert ratios == pytest.approx(ratios_of(ours, other))


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_memory_is_watched_with_and_without_mapped_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(50_000_000))
    take = "import time; taken = bytearray(100_000_000)"
    look = (
        f"import mmap, time; file = open({str(tmp_path / 'file')!r}, 'rb'); "
        "pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(pages[::4096])"
    )
    base, taken, mapped = (
        watch_process([sys.executable, "-c", f"{code}; time.sleep(0.2)"], {}) for code in ("import time", take, look)
    )
    assert taken["anonymous"] - base["anonymous"] == pytest.approx(100e6, rel=0.05)
    assert mapped["resident"] - base["resident"] == pytest.approx(50e6, rel=0.05)
    assert mapped["anonymous"] - base["anonymous"] < 5e6
    with pytest.raises(LLM2CompError, match="ValueError: too much"):
        watch_process([sys.executable, "-c", "raise ValueError('too much')"], {})


@linux
@pytest.mark.slow
def test_growth_is_what_the_larger_build_takes_beyond_the_smaller(tmp_path: Path) -> None:
    record = measure_memory(tmp_path, rows=(500, 1000), types=("flat",))
    small, large = record["flat"]["500"], record["flat"]["1000"]
    assert record["flat"]["growth"] == {name: large[name] - small[name] for name in ("resident", "anonymous")}
    assert 10e6 < small["anonymous"] < small["resident"]
    assert not list((tmp_path / "indexes").iterdir())


@pytest.mark.skipif(not MEMORY.is_file(), reason="not measured yet")
def test_the_memory_of_a_build_does_not_grow_with_the_corpus() -> None:
    record = json.loads(MEMORY.read_text(encoding="utf-8"))
    for kind in ("flat", "ivf"):
        assert record[kind]["growth"] == {
            name: record[kind]["1000000"][name] - record[kind]["100000"][name] for name in ("resident", "anonymous")
        }
        assert record[kind]["growth"]["anonymous"] < 300e6


def test_the_command_refuses_a_result_file_in_no_folder(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["bench", "index", "--json", str(tmp_path / "nowhere" / "out.json")])
    assert run.exit_code == 2
    assert "there is no folder" in run.output


def test_reading_is_measured_in_every_format(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text("".join(json.dumps({"title": "T", "text": f"Bread {row}. " * 9}) + "\n" for row in range(7)))
    rates = measure_reading(str(tmp_path / "formats"), str(corpus), 20, None, 16, 1)
    assert set(rates) == set(FORMATS)
    for name, measured in rates.items():
        assert set(measured) == {"read", "cut", "splitter", "peer", *(["strings"] if name == "csv" else [])}
        assert min(measured.values()) > 0
    documents = {name: list(read_corpus(tmp_path / "formats" / file)) for name, file in FORMATS.items()}
    assert documents["jsonl"] == documents["csv"] == documents["parquet"]
    assert documents["csv"][19].metadata == {"year": 1919, "price": 0.5}
    assert [(one.title, one.text.strip()) for one in documents["markdown"]] == [
        (one.title, one.text.strip()) for one in documents["jsonl"]
    ]
    assert "read and cut" in format_record({"ratios": {}, "reading": rates})
