"""Options of the model on the commands that load one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
ROWS = [{"_id": "bread", "text": "how bread rises in the oven"}, {"_id": "moon", "text": "the moon and the tides"}]
OPTIONS = ("--dtype", "float32", "--max-length", 24, "--truncate-dim", 4, "--batch-size", 2)


@pytest.fixture
def corpus(tmp_path: Path, write_lines: Callable[[Path, list[Any]], Path]) -> Path:
    return write_lines(tmp_path / "corpus.jsonl", ROWS)


def test_an_index_built_with_options_is_searched_and_changed_with_them(
    tmp_path: Path, corpus: Path, saved_model: Path, llm2comp_command: Command
) -> None:
    folder = tmp_path / "idx"
    built = llm2comp_command(
        "index", "build", corpus, "-o", folder, "-m", saved_model, *OPTIONS, "--model-device", "cpu"
    )
    assert (built.code, built.out.splitlines()[0][:25]) == (0, "2 documents, dimension 4,")
    facts = json.loads(llm2comp_command("index", "info", folder, "--json").out)
    assert facts["encoder"] == {"dtype": "float32", "max_length": 24, "truncate_dim": 4}
    shown = llm2comp_command("index", "info", folder).out
    assert "encoded with dtype float32, max_length 24, truncate_dim 4\n" in shown
    assert llm2comp_command("search", folder, "bread", "--model-device", "cpu", "--engine", "torch").code == 0
    refused = llm2comp_command("index", "add", folder, corpus, "--truncate-dim", 2)
    assert refused.code == 1
    assert refused.err == (
        f"llm2comp: error: truncate_dim is 2, and {folder} was encoded with 4: vectors of both do not fit together; "
        "leave it out, or build another index\n"
    )
    assert llm2comp_command("index", "add", folder, corpus, "--batch-size", 1, "--dtype", "float32").code == 0


def test_shards_are_encoded_with_options(
    tmp_path: Path, corpus: Path, saved_model: Path, llm2comp_command: Command
) -> None:
    shards = tmp_path / "shards"
    run = llm2comp_command("encode", corpus, "-o", shards, "-m", saved_model, *OPTIONS, "--device", "cpu")
    assert (run.code, "dimension 4" in run.out) == (0, True)
    assert llm2comp_command("index", "build", "--vectors", shards, "-o", tmp_path / "idx").code == 0
    assert json.loads(llm2comp_command("index", "info", tmp_path / "idx", "--json").out)["dimension"] == 4


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-length", 2, "a maximum length of 2 tokens: give between"),
        ("--truncate-dim", 100_000, "truncate_dim is 100000, and vectors of this model have"),
        ("--model-device", "moon", "device is 'moon', which cannot be used here"),
    ],
)
def test_options_that_the_model_cannot_have(
    tmp_path: Path, corpus: Path, saved_model: Path, llm2comp_command: Command, option: str, value: Any, message: str
) -> None:
    run = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "-m", saved_model, option, value)
    assert run.code == 1
    assert message in run.err
    assert run.err.count("\n") == 1
    assert not (tmp_path / "idx").exists()


@pytest.fixture
def beir(tmp_path: Path, write_lines: Callable[[Path, list[Any]], Path]) -> Path:
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    write_lines(tmp_path / "beir" / "corpus.jsonl", ROWS)
    write_lines(tmp_path / "beir" / "queries.jsonl", [{"_id": "q", "text": "bread in the oven"}])
    write_lines(tmp_path / "beir" / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "q\tbread\t1"])
    return tmp_path / "beir"


def test_results_record_options_and_are_not_mixed_with_others(
    tmp_path: Path, beir: Path, saved_model: Path, llm2comp_command: Command
) -> None:
    out = tmp_path / "out.json"
    command = ("eval", "--beir", beir, "-m", saved_model, "--json", out, "--device", "cpu")
    assert llm2comp_command(*command, "--truncate-dim", 4).code == 0
    settings = json.loads(out.read_text())["settings"]
    assert (settings["encoder"], settings["dimension"]) == ({"truncate_dim": 4}, 4)
    other = llm2comp_command(*command)
    assert (other.code, "made with other settings" in other.err) == (1, True)
    assert llm2comp_command(*command, "--truncate-dim", 4).code == 0


def test_results_of_before_count_as_made_with_the_defaults(
    tmp_path: Path, beir: Path, saved_model: Path, llm2comp_command: Command
) -> None:
    out = tmp_path / "out.json"
    command = ("eval", "--beir", beir, "-m", saved_model, "--json", out)
    assert llm2comp_command(*command).code == 0
    content = json.loads(out.read_text())
    del content["settings"]["encoder"]
    out.write_text(json.dumps(content))
    assert llm2comp_command(*command, "--dtype", "float32").code == 1
    again = llm2comp_command(*command)
    assert (again.code, "finished before" in again.err) == (0, True)


def test_systems_without_such_options_refuse_them(beir: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("eval", "--beir", beir, "-m", "bm25", "--dtype", "float32")
    assert run.code == 1
    assert run.err == "llm2comp: error: dtype float32 is given with bm25, which has no such options; leave it out\n"
    run = llm2comp_command("eval", "--beir", beir, "-m", "random", "--device", "cpu")
    assert run.err == "llm2comp: error: device cpu is given with random, which has no such options; leave it out\n"


def test_models_of_sentence_transformers_take_them(
    beir: Path, exported_model: Path, tmp_path: Path, llm2comp_command: Command
) -> None:
    out = tmp_path / "out.json"
    command = ("eval", "--beir", beir, "-m", exported_model, "--json", out)
    run = llm2comp_command(*command, "--max-length", 24, "--truncate-dim", 4, "--dtype", "float32", "--device", "cpu")
    assert run.code == 0, run.err
    settings = json.loads(out.read_text())["settings"]
    assert (settings["dimension"], settings["max_tokens"]) == (4, 24)
    refused = llm2comp_command("eval", "--beir", beir, "-m", exported_model, "--engine", "openvino")
    assert (refused.code, "engine openvino runs models of llm2comp" in refused.err) == (1, True)
