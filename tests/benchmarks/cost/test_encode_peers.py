"""Engines beside which encoding is measured: they give our vectors, and say what they miss and how they were set."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.cost.encode import matmul
from llm2comp_benchmarks.cost.encode import run as encode_benchmark
from llm2comp_benchmarks.cost.encode.contest import least_cosine
from llm2comp_benchmarks.cost.encode.jobs import SYSTEMS, open_system
from llm2comp_benchmarks.cost.encode.peer_graph import PlainEncoder
from llm2comp_benchmarks.cost.encode.peer_llama_cpp import llama_cpp_command, write_files
from llm2comp_benchmarks.cost.encode.peers import ENGINES, check_engines, engine_settings, engine_systems
from llm2comp_benchmarks.cost.encode.plots import plot_encoding
from llm2comp_benchmarks.cost.encode.run import _our_systems, run_encode_benchmark
from llm2comp_benchmarks.cost.encode.settings import EncodeBenchmark
from llm2comp_benchmarks.cost.models import PARTS, draw, prepare
from llm2comp_benchmarks.cost.tables import format_encoding
from llm2comp_benchmarks.cost.worker import Worker
from tests.benchmarks.cost.in_process import InProcess
from tests.paths import ROOT

SHAPE = "64x2x96"
KINDS = ("short", "document", "long")
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.98}
MODULES = ROOT / "node_modules"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a model of a small shape and texts of all kinds, and facts about them."""
    folder = tmp_path_factory.mktemp("peers")
    texts = [f"Return item {row} of the list" + ", or raise IndexError" * (5 * row % 31) for row in range(20)]
    (folder / "texts.json").write_text(json.dumps([*texts, "word " * 900]), encoding="utf-8")
    return folder / "made", prepare(str(folder / "made"), str(folder / "texts.json"), shape=SHAPE, kinds=KINDS)


def _vectors(jobs: Any, kind: str, file: Path) -> np.ndarray:
    jobs["round"](kind=kind)
    jobs["save"](file=str(file))
    return np.load(file)


@pytest.mark.filterwarnings("ignore")  # of tracing
@pytest.mark.parametrize(
    ("engine", "precision"),
    [(name, precision) for name in ENGINES if name in SYSTEMS for precision in ENGINES[name].precisions],
)
def test_an_engine_gives_our_vectors(
    engine: str, precision: str, prepared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    for package in ENGINES[engine].packages:
        pytest.importorskip(package, reason=f"needs {package}, of the extra peers")
    ours = open_system("llm2comp", str(prepared[0]))
    theirs = open_system(engine, str(prepared[0]), precision=precision, threads=2)
    for kind in ("short", "document"):
        expected, vectors = (_vectors(jobs, kind, tmp_path / "vectors.npy") for jobs in (ours, theirs))
        assert least_cosine(vectors, expected) >= LEAST_COSINE[precision]
        assert np.ptp(expected, axis=0).max() > 1e-3  # not one vector for all


def test_llama_cpp_gets_our_weights(prepared: tuple[Path, dict[str, Any]]) -> None:
    gguf = pytest.importorskip("gguf", reason="needs gguf, of the extra peers")
    folder = prepared[0]
    write_files(str(folder), "bfloat16", ["short"])
    plain = load_file(folder / PARTS["plain"] / "model.safetensors")
    weights = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / "llama-bfloat16.gguf").tensors}
    assert len(weights) == len(plain)

    def weight(name: str) -> np.ndarray:
        tensor = weights[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1].tolist())

    for name, ours in (("blk.1.ffn_up", "layers.1.mlp.up_proj"), ("token_embd", "embed_tokens")):
        np.testing.assert_allclose(weight(f"{name}.weight"), plain[f"{ours}.weight"].numpy(), rtol=1 / 128)
    queries = plain["layers.0.self_attn.q_proj.weight"].numpy()  # one head of 64 dimensions: halves become neighbours
    np.testing.assert_allclose(weight("blk.0.attn_q.weight")[[0, 1, 2, 3]], queries[[0, 32, 1, 33]], rtol=1 / 128)
    lengths = [len(ids) for ids in json.loads((folder / "short-ids.json").read_text())]
    assert sum(lengths) == prepared[1]["short-texts"]["tokens"]


@pytest.mark.skipif(not (MODULES / "node-llama-cpp").is_dir(), reason="needs npm install node-llama-cpp")
@pytest.mark.parametrize("precision", ["bfloat16", "q8_0"])
def test_llama_cpp_gives_the_mean_over_all_tokens(precision: str, prepared: tuple[Path, dict[str, Any]]) -> None:
    pytest.importorskip("gguf", reason="needs gguf, of the extra peers")
    folder = prepared[0]
    command = llama_cpp_command(folder, MODULES, precision, ["short"], 2)
    ids = json.loads((folder / "short-ids.json").read_text())[0]
    encoder = PlainEncoder(folder / PARTS["plain"])
    with torch.inference_mode():
        states = encoder.backbone(torch.tensor([ids]), torch.zeros(1, 1, 1, len(ids)), use_cache=False)
    with Worker("llama.cpp", command, threads=2) as worker:
        vector = np.array([worker.ask("vector", ids=ids)["vector"]])
        assert least_cosine(vector, states.last_hidden_state.mean(1).numpy()) >= 0.999
        assert worker.ask("warm_up", kind="short")["loaded_bytes"] > 0
        measured = worker.ask("round", kind="short")
        assert measured["texts"] == len(measured["query_seconds"]) == prepared[1]["short-texts"]["texts"]
        assert worker.ask("peak")["peak_bytes"] > 0


def test_llama_cpp_that_is_not_installed_is_named_with_the_command(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs gguf, of the extra peers")
    settings = EncodeBenchmark(tmp_path, peers=("llama.cpp",), node_modules=tmp_path)
    with pytest.raises(
        LLM2CompError, match=r"^the peer llama\.cpp needs node-llama-cpp, .*: npm install node-llama-cpp"
    ):
        run_encode_benchmark(settings)


def test_texts_of_each_kind_are_as_long_as_their_kind(prepared: tuple[Path, dict[str, Any]]) -> None:
    facts = prepared[1]
    assert facts["short-texts"]["tokens_of_a_text"]["most"] <= 32
    assert facts["short-texts"]["texts"] > 20
    assert facts["texts"]["texts"] == facts["long-texts"]["texts"] == 21
    assert facts["texts"]["tokens_of_a_text"]["least"] < facts["texts"]["tokens_of_a_text"]["most"] == 512
    assert {facts["long-texts"]["tokens_of_a_text"][part] for part in ("least", "most")} == {512}
    assert len(json.loads((prepared[0] / "short-texts.json").read_text())) == facts["short-texts"]["texts"]


def test_queries_are_timed_one_at_a_time_on_short_texts(prepared: tuple[Path, dict[str, Any]]) -> None:
    jobs = open_system("llm2comp", str(prepared[0]))
    seconds = jobs["round"](kind="short")["query_seconds"]
    assert len(seconds) == min(200, prepared[1]["short-texts"]["texts"])
    assert min(seconds) > 0
    assert "query_seconds" not in jobs["round"](kind="long")


def test_an_engine_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    lines: list[str] = []
    message = r'^the peer openvino needs openvino, which is not installed: pip install "llm2comp\[peers\]"$'
    with pytest.raises(LLM2CompError, match=message):
        run_encode_benchmark(EncodeBenchmark(tmp_path, peers=("openvino",)), tell=lines.append)
    assert not lines
    assert check_engines(("sentence-transformers",)) == {}


def test_bfloat16_is_measured_where_ours_is() -> None:
    assert engine_systems(("openvino", "transformers"), ("float32",)) == [("openvino", "float32"), ("openvino", "int8")]
    assert ("openvino", "bfloat16") in engine_systems(("openvino",), ("float32", "bfloat16"))


def test_settings_of_engines_are_recorded() -> None:
    settings = engine_settings([("openvino", "float32"), ("openvino-streams", "bfloat16"), ("matmul", "float32")], 4)
    assert set(settings) == {"openvino float32", "openvino-streams bfloat16"}
    assert settings["openvino float32"]["NUM_STREAMS"] == "1"
    assert settings["openvino float32"]["INFERENCE_PRECISION_HINT"] == "f32"
    streams = settings["openvino-streams bfloat16"]
    assert (streams["NUM_STREAMS"], streams["INFERENCE_NUM_THREADS"]) == ("4", "4")


class _InProcess(InProcess):
    module = "llm2comp_benchmarks.cost.encode.jobs"
    open_system = staticmethod(lambda **arguments: ({}, open_system(**arguments)))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs benchmarks in the test's own process, with short measurements of products."""
    jobs = {"draw": draw, "prepare": prepare}
    monkeypatch.setattr(encode_benchmark, "Worker", _InProcess)
    monkeypatch.setattr(
        encode_benchmark, "run_model_job", lambda title, job, threads, **arguments: jobs[job](**arguments)
    )
    monkeypatch.setattr(matmul, "_SIZES", {"cpu": (64,)})
    monkeypatch.setattr(matmul, "_SECONDS", 0.0)


@pytest.mark.usefixtures("in_process")
def test_kinds_of_texts_are_measured_one_by_one(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    texts = [f"Return item {row} of the list, or raise an error if there is none of it" for row in range(12)]
    corpus.write_text("".join(json.dumps({"_id": text, "text": text}) + "\n" for text in texts), encoding="utf-8")
    peers = ("sentence-transformers", "transformers")
    settings = EncodeBenchmark(
        tmp_path / "work",
        shape=SHAPE,
        corpora=(str(corpus),),
        kinds=("short", "document"),
        peers=peers,
        precision="float32",
        rounds=2,
    )
    record = run_encode_benchmark(settings)
    ours, other = record["llm2comp short float32"], record["sentence-transformers short float32"]
    assert ours["texts"] == other["texts"] == record["settings"]["short-texts"]["texts"]
    assert ours["tokens"] == record["settings"]["short-texts"]["tokens"] != record["llm2comp float32"]["tokens"]
    assert ours["query_ms"]["queries"] == 2 * ours["texts"]
    assert 0 < ours["query_ms"]["p50"] <= ours["query_ms"]["p99"]
    assert "query_ms" not in record["llm2comp float32"]
    assert ours["least_cosine"] >= 0.9999
    ratios = record["ratios"]["llm2comp short float32"]
    assert set(ratios) == {f"{peer} short float32" for peer in peers}
    query = ratios["sentence-transformers short float32"]["query"]
    assert query == pytest.approx(other["query_ms"]["p50"] / ours["query_ms"]["p50"])
    assert "query" not in ratios["transformers short float32"]
    assert set(record["ratios"]["llm2comp float32"]) == {
        *(f"{peer} float32" for peer in peers),
        "llm2comp-default-malloc float32",
    }
    first, second = format_encoding(record).split("\n\n")[:2]
    assert first.startswith("ours over theirs, the fastest")
    assert " transformers " not in first
    assert second.startswith("one query at a time")


def test_beside_openvino_ours_is_measured_with_both_engines() -> None:
    both = [("llm2comp", "float32"), ("llm2comp-default-malloc", "float32"), ("llm2comp-openvino", "float32")]
    assert _our_systems(("float32",), "cpu", ("sentence-transformers", "openvino-streams")) == both
    assert _our_systems(("float32",), "cpu", ("sentence-transformers",)) == both[:2]
    assert _our_systems(("float32",), "cuda", ()) == both[:1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kinds": ("tweets",)}, "kinds: there is no tweets; give some of short, document, long"),
        ({"kinds": ()}, "kinds is empty"),
        ({"device": "cuda", "peers": ("openvino",)}, "openvino: compared on the CPU only"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        EncodeBenchmark(tmp_path, **wrong)


def test_the_command_names_an_unknown_kind_of_texts() -> None:
    run = CliRunner().invoke(app, ["bench", "encode", "--texts", "tweets"])
    assert run.exit_code != 0
    assert "there is no tweets" in run.output + str(run.exception)


def test_the_chart_has_a_bar_for_each_system_and_kind(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rate = {"tokens_per_second": {"median": 2.0, "least": 1.0, "most": 4.0}}
    names = [f"{system} {kind}bfloat16" for system in ("llm2comp", "openvino") for kind in ("short ", "")]
    record = {**dict.fromkeys(names, rate), "settings": {"threads": 2}}
    plot_encoding({"one": record, "two": record}, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
