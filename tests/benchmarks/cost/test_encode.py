"""The encoding benchmark: the same texts and weights for all systems, what is counted, and what is written."""

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
from llm2comp_benchmarks.cost.encode.jobs import open_system
from llm2comp_benchmarks.cost.encode.run import EncodeBenchmark, run_encode_benchmark
from llm2comp_benchmarks.cost.encode.stages import one_thread, slowest_stage
from llm2comp_benchmarks.cost.models import PARTS, draw, prepare
from llm2comp_benchmarks.cost.shapes import Shape
from llm2comp_benchmarks.cost.tables import format_encoding
from tests.benchmarks.cost.in_process import InProcess
from tests.paths import RESULTS
from tests.threads import torch_threads

FILES = sorted(RESULTS.glob("encode-*.json"))
SHAPE = "32x2x48"
STAGES = {"tokenise", "pack", "forward", "pool", "rest", "write"}


def _write_corpus(file: Path) -> Path:
    texts = [f"Return item {row} of the list" + ", or raise IndexError" * (row % 7) for row in range(40)]
    texts.append("word " * 2000)  # longer than the longest input
    file.write_text(
        "".join(json.dumps({"_id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)), encoding="utf-8"
    )
    return file


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a model of a small shape and all texts of the corpus, and facts about them."""
    folder = tmp_path_factory.mktemp("bench")
    draw(str(folder / "texts.json"), [str(_write_corpus(folder / "corpus.jsonl"))], limit=1000, seed=0)
    return folder / "made", prepare(str(folder / "made"), str(folder / "texts.json"), shape=SHAPE)


def test_texts_are_drawn_at_random_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    corpus = str(_write_corpus(tmp_path / "corpus.jsonl"))

    def drawn(limit: int, seed: int) -> list[str]:
        assert draw(str(tmp_path / "texts.json"), [corpus], limit, seed) == {"texts": min(limit, 41)}
        texts: list[str] = json.loads((tmp_path / "texts.json").read_text())
        return texts

    assert drawn(10, 0) == drawn(10, 0) != drawn(10, 1)
    assert len(set(drawn(10, 0))) == 10
    assert len(drawn(1000, 0)) == 41


def test_both_encode_the_same_texts_with_the_same_weights(
    prepared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    vectors = {}
    for system in ("llm2comp", "sentence-transformers"):
        jobs = open_system(system, str(prepared[0]))
        assert jobs["warm_up"]()["loaded_bytes"] > 0
        measured = jobs["round"]()
        assert measured["texts"] == 41
        assert measured["seconds"] > 0
        jobs["save"](file=str(tmp_path / f"{system}.npy"))
        vectors[system] = np.load(tmp_path / f"{system}.npy")
        assert jobs["peak"]()["peak_bytes"] > 0
    assert vectors["llm2comp"].shape == (41, 32)
    assert vectors["llm2comp"].dtype == np.float32
    assert least_cosine(vectors["llm2comp"], vectors["sentence-transformers"]) >= 0.9999
    assert np.ptp(vectors["llm2comp"], axis=0).max() > 1e-3  # not one vector for all


def test_tokens_are_those_of_the_plain_models_tokenizer(prepared: tuple[Path, dict[str, Any]]) -> None:
    from transformers import AutoTokenizer

    folder, facts = prepared
    tokenizer = AutoTokenizer.from_pretrained(folder / PARTS["plain"])
    lengths = [
        len(ids) for ids in tokenizer(json.loads((folder / PARTS["texts"]).read_text()), truncation=True)["input_ids"]
    ]
    assert facts["texts"]["tokens"] == sum(lengths)
    assert facts["texts"]["tokens_of_a_text"]["most"] == max(lengths) == 512
    assert facts["texts"]["truncated"] == 1


def test_parameters_are_those_that_every_token_is_multiplied_with(prepared: tuple[Path, dict[str, Any]]) -> None:
    assert prepared[1]["model"]["multiplied_parameters"] == 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32


def test_bare_forward_passes_have_rows_of_one_length_and_no_padding(prepared: tuple[Path, dict[str, Any]]) -> None:
    jobs = open_system("transformers", str(prepared[0]))
    measured = jobs["round"]()
    facts = prepared[1]["texts"]
    assert measured["tokens"] == measured["texts"] * round(facts["tokens"] / facts["texts"])
    assert 0 <= facts["tokens"] - measured["tokens"] < measured["tokens"] / measured["texts"]


def test_the_matmul_rate_is_operations_over_seconds(
    prepared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "_SIZES", {"cpu": (64, 128)})
    monkeypatch.setattr(matmul, "_SECONDS", 0.0)
    times = iter(range(1000))
    monkeypatch.setattr(matmul.time, "perf_counter", lambda: float(next(times)))
    measured = open_system("matmul", str(prepared[0]))["round"]()
    assert measured == {"flops": 2 * 128**3, "model_shapes_flops": 2 * 4096 * (4 * 32 * 32 + 3 * 32 * 48)}


def test_large_models_are_written_once_and_in_their_precision(
    prepared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    facts = prepare(str(made), str(prepared[0] / PARTS["texts"]), shape=SHAPE, plain=False, dtype="bfloat16")
    assert facts["model"]["multiplied_parameters"] == prepared[1]["model"]["multiplied_parameters"]
    assert not (made / PARTS["plain"]).exists()
    (weights,) = (load_file(file) for file in (made / PARTS["ours"]).rglob("model*.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert open_system("llm2comp", str(made), precision="bfloat16")["round"]()["texts"] == 41
    assert open_system("matmul", str(made), precision="bfloat16").keys() == {"warm_up", "round", "peak"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_memory_is_the_gpus_and_its_busy_share_is_reported(
    prepared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    jobs = open_system("llm2comp", str(prepared[0]), device="cuda")
    assert 0 < jobs["warm_up"]()["loaded_bytes"] < 50_000_000  # of a small model, where a process alone holds more
    assert jobs["round"]()["texts"] == 41
    assert 0 < jobs["stages"](file=str(tmp_path / "vectors.npy"))["busy"] <= 1
    assert open_system("matmul", str(prepared[0]), device="cuda")["round"]()["flops"] > 0


def test_stages_add_up_to_the_whole_and_leave_the_model_as_it_was(
    prepared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    jobs = open_system("llm2comp", str(prepared[0]))
    for _ in range(2):
        measured = jobs["stages"](file=str(tmp_path / "vectors.npy"))
        stages = measured["stages"]
        assert set(stages) == {"encode", *STAGES}
        assert min(stages[name] for name in ("tokenise", "forward", "write")) > 0
        assert sum(stages[name] for name in STAGES - {"write"}) == pytest.approx(stages["encode"])
    assert np.load(tmp_path / "vectors.npy").shape == (41, 32)
    assert 0 < sum(measured["operations"].values()) <= 1.001


def test_stages_are_measured_on_one_thread_so_that_they_do_not_overlap() -> None:
    with torch_threads(2):
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2


def test_the_slowest_stage_is_none_of_the_sums() -> None:
    assert slowest_stage({"encode": 9.0, "tokenise": 1.0, "forward": 3.0, "write": 5.0}) == "write"


@pytest.mark.parametrize(
    ("name", "heads"), [("tiny", 4), ("15m", 6), ("85m", 12), ("100x1x10", 2), ("2x1x1", 1), ("1.5b", 12), ("7b", 32)]
)
def test_shapes_have_heads_of_at_most_64_even_dimensions_and_wide_ones_of_128(name: str, heads: int) -> None:
    assert Shape.parse(name).heads == heads


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"peers": ("transformers", "vllm")}, "there is no vllm; give some of sentence-transformers, transformers"),
        ({"peer_llm2vec": Path("no/python")}, "no such program"),
        ({"model": "a", "shape": "tiny"}, "give one of them"),
        ({"shape": "768x12"}, "shape is '768x12'"),
        ({"shape": "0x1x2"}, "shape is '0x1x2'"),
        ({"shape": "33x1x2"}, "must be even"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"device": "cuda", "peer_llm2vec": Path(sys.executable)}, "llm2vec is compared on the CPU only"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        EncodeBenchmark(tmp_path, **wrong)


def test_an_environment_without_llm2vec_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(LLM2CompError, match="^open llm2vec: failed: ModuleNotFoundError: No module named 'llm2vec'$"):
        run_encode_benchmark(EncodeBenchmark(tmp_path, peer_llm2vec=Path(sys.executable)), tell=lines.append)
    assert not lines


def test_the_lowest_cosine_is_that_of_the_worst_text() -> None:
    assert least_cosine(np.eye(2, dtype=np.float32), np.array([[2, 0], [3, 4]], np.float32)) == pytest.approx(0.8)


class _InProcess(InProcess):
    module = "llm2comp_benchmarks.cost.encode.jobs"
    open_system = staticmethod(lambda **arguments: ({}, open_system(**arguments)))


def _check_run(folder: Path) -> None:
    corpus = _write_corpus(folder / "corpus.jsonl")
    settings = EncodeBenchmark(
        folder / "work", shape=SHAPE, corpora=(str(corpus),), limit=30, precision="float32", rounds=2
    )
    record = run_encode_benchmark(settings)
    ours, other = record["llm2comp float32"], record["sentence-transformers float32"]
    ratios = [theirs / one for one, theirs in zip(ours["seconds"], other["seconds"], strict=True)]
    speed = record["ratios"]["llm2comp float32"]["sentence-transformers float32"]["speed"]
    assert (speed["least"], speed["most"]) == pytest.approx((min(ratios), max(ratios)))
    assert ours["least_cosine"] >= 0.9999
    assert ours["texts"] == other["texts"] == 30
    assert ours["tokens"] == other["tokens"] == record["settings"]["texts"]["tokens"]
    operations = 2 * record["settings"]["model"]["multiplied_parameters"] * ours["tokens"]
    assert ours["gflops"]["most"] == pytest.approx(operations / min(ours["seconds"]) / 1e9)
    peers = {"sentence-transformers float32", "transformers float32"}
    assert set(record["ratios"]["llm2comp float32"]) == {*peers, "llm2comp-default-malloc float32"}
    assert set(record["ratios"]["llm2comp-default-malloc float32"]) == peers
    assert 0 < ours["matmul_share"]["least"] <= ours["matmul_share"]["most"]
    assert ours["slowest_stage"] in STAGES
    assert record["hardware"]["threads"] == 1
    assert not list((folder / "work").iterdir())
    shown = format_encoding(record)
    assert shown.startswith("ours over theirs")
    assert f"slowest stage {ours['slowest_stage']}" in shown


def test_a_run_compares_round_by_round_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_benchmark, "Worker", _InProcess)
    monkeypatch.setattr(
        encode_benchmark,
        "run_model_job",
        lambda title, job, threads, **arguments: {"draw": draw, "prepare": prepare}[job](**arguments),
    )
    monkeypatch.setattr(matmul, "_SIZES", {"cpu": (64,)})
    monkeypatch.setattr(matmul, "_SECONDS", 0.0)
    _check_run(tmp_path)


@pytest.mark.slow
def test_a_run_in_processes_of_their_own(tmp_path: Path) -> None:
    _check_run(tmp_path)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_ratios_in_results_are_those_of_their_seconds(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["ratios"]
    for name, others in record["ratios"].items():
        ours = record[name]
        for other, ratio in others.items():
            rates = [[entry[ratio["per"]] / seconds for seconds in entry["seconds"]] for entry in (ours, record[other])]
            speeds = [one / theirs for one, theirs in zip(*rates, strict=True)]
            assert (ratio["speed"]["least"], ratio["speed"]["most"]) == pytest.approx((min(speeds), max(speeds)))


def test_the_command_refuses_a_result_file_in_no_folder(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["bench", "encode", "--json", str(tmp_path / "nowhere" / "out.json")])
    assert run.exit_code == 2
    assert "there is no folder" in run.output
