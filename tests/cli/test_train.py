"""`llm2comp train`: stages one by one, recipes, and one line for everything a user can get wrong."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import llm2comp
from llm2comp.cli.train_stage import Start, unused_options
from llm2comp.training.settings import ContrastiveSettings
from tests.training.tiny import BACKBONE, environment, small_model, text, write_corpus, write_pairs, write_recipe

Command = Callable[..., Any]
FEW = (
    "--set",
    "steps=2",
    "--set",
    "batch_size=4",
    "--set",
    "warmup_steps=1",
    "--set",
    "log_steps=1",
    "--set",
    "precision=float32",
)


pytestmark = pytest.mark.usefixtures("propagating_reports")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", [text(number, 80) for number in range(12)])


def test_three_stages_one_after_the_other(llm2comp_command: Command, corpus: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 12)
    shape = ("--memory-tokens", 2, "--rank", 2, "--max-length", 64)
    first = llm2comp_command(
        "train",
        "compress",
        BACKBONE,
        "-o",
        tmp_path / "one",
        "-c",
        corpus,
        *shape,
        *FEW,
        "--set",
        "max_tokens=40",
        "--set",
        "min_characters=100",
    )
    assert (first.code, first.out.splitlines()[-1]) == (0, str(tmp_path / "one" / "model"))
    assert first.out.startswith("step 1/2  loss ")
    second = llm2comp_command(
        "train", "unsupervised", tmp_path / "one" / "model", "-o", tmp_path / "two", "-c", corpus, *FEW
    )
    assert second.code == 0, second.err
    third = llm2comp_command(
        "train",
        "supervised",
        tmp_path / "two" / "model",
        "-o",
        tmp_path / "three",
        "-p",
        pairs,
        *FEW,
        "--set",
        "micro_batch=2",
    )
    assert third.code == 0, third.err
    model = llm2comp.load(tmp_path / "three" / "model", device="cpu")
    assert model.stages == ["compression:distillation", "unsupervised", "supervised"]
    assert model.memory_tokens == 2
    again = llm2comp_command(
        "train",
        "supervised",
        tmp_path / "two" / "model",
        "-o",
        tmp_path / "three",
        "-p",
        pairs,
        *FEW,
        "--set",
        "micro_batch=4",
    )
    assert (again.code, again.out) == (0, f"{tmp_path / 'three' / 'model'}\n")
    less = ("--set", "micro_batch=2", "--set", "temperature=0.1")
    other = llm2comp_command(
        "train", "supervised", tmp_path / "two" / "model", "-o", tmp_path / "three", "-p", pairs, *FEW, *less
    )
    assert other.code == 1
    assert "three was begun with other settings: temperature was 0.05, now 0.1." in other.err


def test_settings_come_from_the_paper_then_the_file_then_the_command(
    llm2comp_command: Command, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(
        "{steps: 3, batch_size: 4, warmup_steps: 1, min_characters: 100, max_tokens: 40, precision: float32, "
        "objective: continuation}"
    )
    arguments = (
        "-c",
        corpus,
        "--rank",
        2,
        "--max-length",
        64,
        "--settings",
        tmp_path / "s.yaml",
        "--set",
        "steps=1",
        "--set",
        "warmup_steps=0",
    )
    ran = llm2comp_command("train", "compress", BACKBONE, "-o", tmp_path / "out", *arguments)
    assert ran.code == 0, ran.err
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (
        settings["steps"],
        settings["batch_size"],
        settings["objective"],
        settings["clip"],
        settings["weight_decay"],
    ) == (1, 4, "continuation", 2.0, 1e-5)
    assert settings["model"]["adapter"]["rank"] == 2


def compress(*arguments: object) -> tuple[object, ...]:
    return ("train", "compress", BACKBONE, "-o", "out", "-c", "corpus.jsonl", *arguments)


def mine(*arguments: object) -> tuple[object, ...]:
    return ("train", "mine-negatives", "llm2comp-tiny", *arguments, "-o", "out")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (compress("--set", "steps"), 2, "'steps': give FIELD=VALUE, such as steps=1000"),
        (compress("--set", "=3"), 2, "give FIELD=VALUE"),
        (compress("--set", "steps=[1"), 1, "--set steps=[1:"),
        (compress("--set", "steps=many"), 1, "compression settings: steps is 'many'; expected a whole number"),
        (compress("--set", "step=3"), 1, "compression settings: unknown field step"),
        (compress("--paper", "--set", "steps=5"), 1, "compression settings: warmup_steps 800 must be below steps 5"),
        (compress("--settings", "none.yaml"), 1, "no settings file none.yaml"),
        (compress("--settings", "list.yaml"), 1, "list.yaml: expected fields with values"),
        (compress("--settings", "latin.yaml"), 1, "latin.yaml: not UTF-8"),
        (compress("--heldout", "nowhere.jsonl"), 1, "heldout: no file or folder 'nowhere.jsonl'"),
        (compress("-c", "nowhere.jsonl"), 1, "corpora[1]: no file or folder 'nowhere.jsonl'"),
        (compress("--rank", "-1"), 1, "an adapter of rank -1"),
        (compress("--memory-tokens", "0"), 1, "memory_tokens is 0"),
        (compress("--max-length", "9"), 1, "max_length 9 leaves no room"),
        (
            compress("--max-length", "100", "--set", "max_tokens=512", *FEW),
            1,
            "max_tokens 512 and 8 memory tokens exceed the model's max_length 100",
        ),
        (("train", "compress", "no/where/model", "-o", "out", "-c", "corpus.jsonl", *FEW), 1, "no/where/model"),
        (("train", "compress", BACKBONE, "-o", "file/out", "-c", "corpus.jsonl", *FEW), 1, "file"),
        (("train", "compress", BACKBONE, "-o", "out"), 2, "--corpus"),
        (
            ("train", "supervised", BACKBONE, "-o", "out", "-p", "bad.jsonl", *FEW, "--set", "micro_batch=2"),
            1,
            "bad.jsonl:1: not JSON",
        ),
        (
            (
                *("train", "supervised", BACKBONE, "-o", "out", "-p", "corpus.jsonl", *FEW, "--memory-tokens", "1"),
                *("--set", "maxsim_weight=0.5", "--check"),
            ),
            1,
            "supervised settings: maxsim_weight 0.5: several memory tokens of a text are compared, and the model has 1",
        ),
        (mine("bad.jsonl"), 1, "bad.jsonl:1: not JSON"),
        (mine("nowhere.jsonl"), 1, "nowhere.jsonl: no such file or folder"),
        (mine("corpus.jsonl"), 1, "corpus.jsonl:1: no query"),
        (mine("corpus.jsonl", "--margin", 1.2), 2, "margin is 1.2; expected a number above 0, at most 1"),
        (mine("corpus.jsonl", "--sampling", "all"), 2, "sampling is 'all'; give top or random"),
        (mine(), 2, "Missing argument 'PAIRS'"),
        (("train", "recipe", "nothing", "-o", "out"), 1, "no recipe 'nothing': give a .yaml file or one of"),
        (("train", "recipe", "llm2comp-tiny", "-o", "out"), 1, "say where they are with --data DIR"),
        (
            ("train", "recipe", "llm2comp-tiny", "-o", "out", "--data", "nowhere"),
            1,
            "pretrain.corpora[0]: no file or folder 'nowhere/wiki/articles.jsonl.xz'",
        ),
        (
            ("train", "recipe", "bad.yaml", "-o", "out"),
            1,
            "bad.yaml: compression: steps is 'x'; expected a whole number",
        ),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: tuple[object, ...],
    code: int,
    message: str,
    llm2comp_command: Command,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[steps]")
    Path("latin.yaml").write_bytes("about: für".encode("latin-1"))
    Path("file").touch()
    Path("bad.jsonl").write_text("{\n")
    recipe = {
        "name": "a",
        "about": "",
        "model": {"backbone": "b"},
        "compression": {"corpora": ["corpus.jsonl"], "steps": "x", "batch_size": 1, "learning_rate": 1.0},
    }
    Path("bad.yaml").write_text(yaml.safe_dump(recipe))
    ran = llm2comp_command(*arguments)
    assert ran.code == code, ran.err
    assert message in " ".join(ran.err.replace("│", " ").split()), ran.err
    assert ran.out == ""
    if code == 1:
        assert ran.err.count("\n") == 1
        assert ran.err.startswith("llm2comp: error: ")
    assert not list(tmp_path.glob("out/**/*.safetensors"))


def test_negatives_are_mined_and_trained_on(
    llm2comp_command: Command, saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(Path("a.jsonl"), 12)
    write_pairs(Path("b.jsonl"), 6, start=20)
    command = ("train", "mine-negatives", saved_model, "a.jsonl", "b.jsonl", "-o", "mined", "-n", 2, "--margin", 1)
    first = llm2comp_command(*command)
    assert first.code == 0, first.err
    a, b, folder = first.out.splitlines()
    assert a.startswith("a: 12 rows, ")
    assert b.startswith("b: 6 rows, ")
    assert folder == "mined"
    again = llm2comp_command(*command, "--json")
    report = json.loads(again.out)
    assert report["folder"] == "mined"
    assert report["model"] == llm2comp.load(saved_model, device="cpu").fingerprint
    assert [report["files"][name]["rows"] for name in "ab"] == [12, 6]
    shorter = llm2comp_command(*command, "--max-length", 20)
    assert (shorter.code, shorter.err.count("\n")) == (1, 1)
    assert "mined was begun with other settings: another model, or another maximum length of it." in shorter.err
    recipe = yaml.safe_load(write_recipe(tmp_path).read_text())
    recipe["model"]["backbone"] = str(BACKBONE)
    recipe["supervised"] |= {"pairs": ["mined"], "max_negatives": 2, "batch_size": 2, "heldout_rows": 0, "steps": 2}
    Path("r.yaml").write_text(yaml.safe_dump({name: recipe[name] for name in ("name", "about", "model", "supervised")}))
    trained = llm2comp_command("train", "recipe", "r.yaml", "-o", "run", "--data", "data")
    assert trained.code == 0, trained.err


def test_an_empty_corpus_and_one_of_short_texts(llm2comp_command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    shape = ("--rank", 2, "--max-length", 64, *FEW, "--set", "max_tokens=40", "--set", "min_characters=1000")
    ran = llm2comp_command("train", "compress", BACKBONE, "-o", tmp_path / "a", "-c", tmp_path / "empty.jsonl", *shape)
    assert ran.code == 1
    assert "empty.jsonl: an empty corpus" in ran.err
    short = write_corpus(tmp_path / "short.jsonl", ["a few words"])
    ran = llm2comp_command("train", "compress", BACKBONE, "-o", tmp_path / "b", "-c", short, *shape)
    assert ran.code == 1
    assert "no text of at least 1000 characters and 21 tokens in" in ran.err


def test_a_bad_recipe_is_refused_without_loading_torch(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("{name: a, about: b, model: {backbone: c}, compression: {steps: 0}}")
    code = (
        "import sys\nfrom llm2comp.cli import main\nsys.argv = ['llm2comp', 'train', 'recipe', 'bad.yaml', '-o', "
        "'out']\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    started = time.process_time()
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stdout == "False False\n"
    assert ran.stderr == "llm2comp: error: bad.yaml: compression: corpora must be given\n"
    assert time.process_time() - started < 5


def test_python_m_llm2comp_is_the_command(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "llm2comp", "train", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "recipe" in ran.stdout


def test_mistakes_are_all_named_each_on_its_line(
    llm2comp_command: Command, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = ("--set", "warmup=3", "--set", "batch_size=0", "--max-length", 5000, "--heldout", "nowhere.jsonl")
    ran = llm2comp_command(*compress(*wrong))
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert lines[0] == f"llm2comp: error: {len(lines) - 1} mistakes"
    assert sorted(line.split(";")[0] for line in lines[1:]) == [
        "  compression settings: batch_size is 0",
        "  compression settings: unknown field warmup",
        "  heldout: no file or folder 'nowhere.jsonl'",
        "  model: max_length 5000 exceeds the language model's own maximum, 1024",
    ]
    assert not Path("out").exists()


def test_first_attempts_with_few_steps_succeed(llm2comp_command: Command, corpus: Path, tmp_path: Path) -> None:
    """`steps` alone is given: warm-up, lengths and micro-batches fit by themselves."""
    steps = ("--set", "steps=3", "--set", "batch_size=4")
    first = llm2comp_command(
        "train", "compress", BACKBONE, "-o", tmp_path / "1", "-c", corpus, *steps, "--max-length", 64
    )
    assert first.code == 0, first.err
    assert (tmp_path / "1" / "loss.png").is_file()
    pairs = write_pairs(tmp_path / "pairs.jsonl", 12)
    model = tmp_path / "1" / "model"
    second = llm2comp_command(
        "train", "supervised", model, "-o", tmp_path / "2", "-p", pairs, *steps, "--weights", "bfloat16"
    )
    assert second.code == 0, second.err
    assert "12 pairs in 1 data set" in second.err
    config = json.loads((tmp_path / "2" / "model" / "backbone" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_check_trains_nothing(llm2comp_command: Command, corpus: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "out", "-c", corpus, "--set", "steps=50", "--max-length", 64, "--check")
    ran = llm2comp_command("train", "compress", BACKBONE, *arguments)
    assert ran.code == 0, ran.err
    header, row = ran.out.splitlines()
    assert header.split() == ["stage", "updates", "rows", "each", "passes", "s/update", "time", "memory"]
    assert row.split()[:3] == ["compression", "50", "4"]
    recipe = {"name": "a", "about": "", "model": {"backbone": str(BACKBONE), "max_length": 64}}
    recipe["compression"] = {"corpora": [str(corpus)], "steps": 20}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    ran = llm2comp_command("train", "recipe", tmp_path / "r.yaml", "--check")
    assert ran.code == 0, ran.err
    assert "of training here" in ran.out
    assert not (tmp_path / "out").exists()
    ran = llm2comp_command("train", "recipe", tmp_path / "r.yaml")
    assert (ran.code, "-o DIR, or --check" in " ".join(ran.err.replace("│", " ").split())) == (2, True)


def test_options_of_new_encoders_are_named_if_a_trained_model_does_not_take_them(
    llm2comp_command: Command, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 12)
    small_model(adapter=None).save(tmp_path / "model")
    command = ("train", "supervised", tmp_path / "model", "-p", pairs, *FEW)
    assert "not used" not in llm2comp_command(*command, "-o", tmp_path / "1").err
    options = ("--memory-tokens", 2, "--layers", 1, "--max-length", 40, "--rank", 4)
    ran = llm2comp_command(*command, "-o", tmp_path / "2", *options)
    assert ran.code == 0, ran.err
    unused = "--memory-tokens 2, --layers 1, --max-length 40, --rank 4"
    assert f"{tmp_path / 'model'} is trained already and stays as it is made; not used: {unused}" in ran.err


def test_the_rank_of_a_merged_adapters_successor_is_used(tmp_path: Path) -> None:
    small_model().save(tmp_path)
    settings = ContrastiveSettings(steps=1, batch_size=2, learning_rate=1.0, pairs=("p",), adapter="merge")
    assert unused_options(Start(str(tmp_path), None, 4, None, None, "float32"), tmp_path, settings) == []
    assert unused_options(Start(str(tmp_path), None, 0, None, None, "float32"), tmp_path, settings) == ["--rank 0"]
    keep = replace(settings, adapter="keep")
    assert unused_options(Start(str(tmp_path), None, 4, None, None, "float32"), tmp_path, keep) == ["--rank 4"]
