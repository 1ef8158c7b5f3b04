"""The benchmark of growth: laws fitted to costs that follow them, sizes, and what is written and drawn."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import llm2comp
from llm2comp.cli import app
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.growth import run as growth
from llm2comp_benchmarks.cost.growth.jobs import draw_texts, one_token_words, open_encoder
from llm2comp_benchmarks.cost.growth.laws import LAWS, growth_with_k
from llm2comp_benchmarks.cost.growth.plots import plot_growth
from llm2comp_benchmarks.cost.growth.run import CURVES, GrowthBenchmark, run_growth_benchmark
from llm2comp_benchmarks.cost.models import prepare
from llm2comp_benchmarks.cost.tables import format_growth
from tests.paths import RESULTS

FILES = sorted(RESULTS.glob("growth-*.json"))
SHAPE = "32x2x48"
LENGTHS = (16, 32, 64, 128, 256)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of a small shape."""
    folder = tmp_path_factory.mktemp("growth")
    (folder / "texts.json").write_text('["text"]')
    prepare(str(folder / "made"), str(folder / "texts.json"), shape=SHAPE)
    return folder / "made"


def test_a_law_is_found_again_in_costs_that_follow_it() -> None:
    fitted = LAWS["length"].fit(LENGTHS, [0.5 + 2e-3 * length + 3e-6 * length**2 for length in LENGTHS])
    assert fitted["coefficients"] == pytest.approx({"a": 0.5, "b": 2e-3, "c": 3e-6})
    assert fitted["largest_deviation"] == pytest.approx(0, abs=1e-9)
    with_k = growth_with_k(64).fit((1, 4, 32), [1e-3 * (64 + k) + 1e-6 * (64 + k) ** 2 for k in (1, 4, 32)])
    assert with_k["coefficients"] == pytest.approx({"b": 1e-3, "c": 1e-6})


def test_costs_that_break_a_law_deviate_from_it() -> None:
    sizes = (1000, 2000, 4000, 8000)
    squares = LAWS["tokens"].fit(sizes, [(size / 1000) ** 2 for size in sizes])
    assert squares["largest_deviation"] > 0.3
    assert squares["coefficients"]["a"] == 0  # below 0 it would fit better, and mean nothing
    assert LAWS["memory"].fit(sizes, [1.0, 1.0, 1.0, 2.0])["largest_deviation"] >= 0.3


def test_every_deviation_counts_alike_however_small_the_cost() -> None:
    fitted = LAWS["memory"].fit((1, 2), [1.0, 3.0])
    assert fitted["fitted"] == pytest.approx([1.2, 1.2])  # the least sum of (a - 1)² + (a/3 - 1)²
    assert fitted["largest_deviation"] == pytest.approx(0.6)


def test_texts_have_as_many_tokens_as_asked_for() -> None:
    encoder = llm2comp.load().encoder
    words = one_token_words(encoder.tokenizer)
    assert len(words) > 1000
    for tokens in (1, 7, 300):
        texts = draw_texts(words, 40, tokens, seed=0)
        assert {len(ids) for ids in encoder.token_ids(texts)} == {tokens + 1}  # and the beginning
        assert len(set(texts)) > 30
        assert texts == draw_texts(words, 40, tokens, seed=0) != draw_texts(words, 40, tokens, seed=1)


def test_a_tokenizer_without_words_is_refused(model: llm2comp.LLM2Comp) -> None:
    with pytest.raises(SettingsError, match="words that are one token, expected at least 100"):
        one_token_words(model.encoder.tokenizer)


def test_what_is_encoded_has_the_tokens_and_memory_tokens_it_is_called_by(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    original = llm2comp.encoder.MemoryEncoder.memory_states

    def record(self: Any, tokens: Any, lengths: Any) -> Any:
        seen.append((len(lengths), len(tokens) + len(lengths) * self.memory_tokens))
        return original(self, tokens, lengths)

    monkeypatch.setattr(llm2comp.encoder.MemoryEncoder, "memory_states", record)
    facts, jobs = open_encoder(str(prepared), "float32")
    assert facts["memory_tokens"] == 8
    for count, tokens, k in ((5, 64, 1), (3, 64, 32), (70, 10, None), (2, 900, 8)):
        seen.clear()
        assert jobs["encode"](count=count, tokens=tokens, memory_tokens=k)["seconds"] > 0
        assert tuple(map(sum, zip(*seen, strict=True))) == (count, count * (tokens + (k or 8)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"lengths": (16, 32)}, "lengths are 16, 32: give three different ones"),
        ({"lengths": (8, 16, 32)}, "from 16 on"),
        ({"vocabularies": (3, 10, 20)}, "from 4 on"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"shape": "1x2"}, "shape is '1x2'"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        GrowthBenchmark(tmp_path, **wrong)


class _Machine:
    """Stands for a worker: costs follow the laws."""

    def __init__(self, name: str, command: list[str], *, threads: int) -> None:
        self.arguments = json.loads(command[-1])
        self.opened = {"dtype": "float32", "memory_tokens": 8}

    def __enter__(self) -> "_Machine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        if job == "write_stream":
            return {}
        if job == "step":
            return {"seconds": 0.5 + 1e-5 * self.arguments["vocabulary"]}
        length = arguments["tokens"] + (arguments.get("memory_tokens") or 8)
        return {"seconds": arguments["count"] * (1e-5 * length + 1e-8 * length**2)}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of a machine that follows every law."""

    def watch(command: list[str], environment: dict[str, str]) -> dict[str, int]:
        Path(json.loads(command[-1])["output"]).mkdir(parents=True)
        return {"resident": 600 * 10**6, "anonymous": 400 * 10**6}

    described = {"model": {"fingerprint": None, "hidden": 32, "layers": 2, "intermediate": 48}}
    monkeypatch.setattr(growth, "Worker", _Machine)
    monkeypatch.setattr(growth, "watch_process", watch)
    monkeypatch.setattr(growth, "run_model_job", lambda *_, **__: described)
    return run_growth_benchmark(GrowthBenchmark(tmp_path / "work", rounds=3))


def test_curves_have_all_sizes_in_order_and_the_law_of_each(record: dict[str, Any]) -> None:
    settings = GrowthBenchmark(Path())
    assert list(record["curves"]) == list(CURVES)
    for name, curve in record["curves"].items():
        expected = [64 * count for count in settings.counts] if name == "tokens" else list(settings.sizes(name))
        assert [point["at"] for point in curve["points"]] == expected
        assert {len(point["rounds"]) for point in curve["points"]} == {3}
        assert curve["law"]["largest_deviation"] < 1e-6
    assert record["curves"]["vocabulary"]["law"]["coefficients"] == pytest.approx({"a": 0.5, "b": 1e-5})
    assert record["curves"]["k"]["law"]["coefficients"] == pytest.approx({"b": 128e-5, "c": 128e-8})
    assert record["curves"]["memory"]["law"]["coefficients"] == pytest.approx({"a": 600e6})


def test_the_table_names_every_law_and_the_picture_is_one(record: dict[str, Any], tmp_path: Path) -> None:
    shown = format_growth(record)
    assert re.search(r"length +16 +1,024 +a \+ b L \+ c L² +0.0%", shown)
    assert re.search(r"memory +4,096 +65,536 +constant +0.0%  a = 600\n", shown)
    plot_growth(record, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    for name in CURVES:  # any of them may be left out
        few = {**record, "curves": {name: record["curves"][name]}}
        plot_growth(few, tmp_path / f"{name}.png")
        assert name in format_growth(few)


@pytest.mark.slow
def test_a_run_in_processes_of_their_own(tmp_path: Path) -> None:
    sizes = [
        "--counts",
        "8 16 32",
        "--memory-tokens",
        "1 2 4",
        "--lengths",
        "16 32 64",
        "--corpora",
        "500 1000 2000",
        "--vocabularies",
        "100 200 400",
    ]
    files = [
        "--json",
        str(tmp_path / "growth.json"),
        "--png",
        str(tmp_path / "growth.png"),
        "--workdir",
        str(tmp_path / "work"),
    ]
    run = CliRunner().invoke(
        app, ["bench", "growth", "--shape", SHAPE, "--texts", "4", "--rounds", "1", *sizes, *files]
    )
    assert run.exit_code == 0, run.output
    record = json.loads((tmp_path / "growth.json").read_text())
    assert list(record["curves"]) == list(CURVES)
    assert all(point["least"] > 0 for curve in record["curves"].values() for point in curve["points"])
    assert (tmp_path / "growth.png").is_file()
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_deviations_in_results_are_those_of_their_points(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    for curve in record["curves"].values():
        costs = [point["median"] for point in curve["points"]]
        deviations = [abs(law / cost - 1) for law, cost in zip(curve["law"]["fitted"], costs, strict=True)]
        assert curve["law"]["largest_deviation"] == pytest.approx(max(deviations))


def test_wrong_sizes_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["bench", "growth", "--lengths", "16 many"])
    assert run.exit_code == 2
    assert "give whole numbers separated by spaces" in run.output
