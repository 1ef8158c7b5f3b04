"""`llm2comp analyze` as a user runs it."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import BACKBONE

Command = Callable[..., Any]
TEXTS = [" ".join(f"word{number * length}" for number in range(length)) for length in (30, 12, 25, 18, 40)]


@pytest.fixture
def corpus(tmp_path: Path, write_lines: Callable[[Path, list[Any]], Path]) -> Path:
    """Five texts and an empty one."""
    return write_lines(
        tmp_path / "corpus.jsonl", [{"id": str(row), "text": text} for row, text in enumerate([*TEXTS, "  "])]
    )


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and 5_000 < path.stat().st_size < 150_000


def test_a_model_that_has_its_reader_beside_one_without(
    llm2comp_command: Command,
    saved_model: Path,
    exported_model: Path,
    corpus: Path,
    write_lines: Callable[..., Path],
    tmp_path: Path,
) -> None:
    import llm2comp
    from llm2comp.analysis import describe_embeddings

    pairs = write_lines(
        tmp_path / "pairs.jsonl", [{"query": "who", "positive": ["she", "he"]}, {"query": "what", "positive": "it"}]
    )
    out = tmp_path / "made" / "here"
    done = llm2comp_command(
        "analyze",
        saved_model,
        corpus,
        "-o",
        out,
        "--against",
        exported_model,
        "--pairs",
        pairs,
        "--samples",
        1,
        "--sample-tokens",
        4,
        "--device",
        "cpu",
    )
    assert done.code == 0, done.err
    assert is_picture(out / "spectrum.png")
    assert is_picture(out / "memory.png")
    analysis = json.loads((out / "analysis.json").read_text())
    ours, plain = analysis["models"]
    model = llm2comp.load(saved_model, device="cpu", dtype="float32")
    expected = describe_embeddings(model, TEXTS, pairs=[("who", "she"), ("what", "it")])
    assert expected["texts"] == 5
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, err_msg=name)
    assert ours["fingerprint"] == model.fingerprint
    assert plain["uniformity"] == pytest.approx(ours["uniformity"], rel=1e-4)
    assert (plain["fingerprint"], plain["reading"], plain["no_reading"]) == (None, None, "it has no memory tokens")
    assert len(ours["singular_values"]) == 5
    assert set(ours["reading"]["nll"]) == {"nothing", "another text", "memory", "whole text"}
    assert (ours["reading"]["texts"], len(ours["samples"])) == (5, 1)
    assert analysis["empty_texts_left_out"] == 1
    assert analysis["settings"]["pairs"] == str(pairs)
    assert {"llm2comp", "torch", "python"} <= analysis["versions"].keys()

    table = {line[:36].strip(): line[36:].split() for line in done.out.split("\n\n")[0].splitlines()}
    assert [float(value) for value in table["participation ratio"]] == pytest.approx(
        [expected["participation_ratio"]] * 2, abs=0.06
    )
    assert table["memory tokens"] == ["4", "-"]
    assert float(table["NLL after memory"][0]) == pytest.approx(ours["reading"]["nll"]["memory"], abs=6e-5)
    assert "from memory" in done.out
    assert "1 empty text was left out" in done.err
    assert "no reading from memory, for it has no memory tokens" in done.err


def test_a_model_whose_weights_were_all_trained(
    llm2comp_command: Command, make_model: Callable[..., Any], corpus: Path, tmp_path: Path
) -> None:
    model = make_model(adapter=None)
    model.changed("compression:distillation")
    model.save(tmp_path / "whole")
    done = llm2comp_command("analyze", tmp_path / "whole", corpus, "-o", tmp_path / "out", "--device", "cpu")
    assert done.code == 0
    assert "all its weights were trained" in done.err
    assert "--reader" in done.err
    assert "no alignment, which needs pairs" in done.err
    assert "NLL" not in done.out

    done = llm2comp_command(
        "analyze",
        tmp_path / "whole",
        corpus,
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
        "--reader",
        BACKBONE,
        "--samples",
        0,
    )
    assert done.code == 0
    assert "NLL after memory" in done.out
    assert "What the language model writes" not in done.out
    reading = json.loads((tmp_path / "out" / "analysis.json").read_text())["models"][0]["reading"]
    assert all(math.isfinite(value) for value in reading["nll"].values())


def test_texts_too_short_to_be_cut(
    llm2comp_command: Command, saved_model: Path, write_lines: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = write_lines(tmp_path / "short.jsonl", [{"text": "one"}, {"text": "two"}, {"text": "two"}])
    done = llm2comp_command("analyze", saved_model, corpus, "-o", tmp_path / "out", "--device", "cpu")
    assert done.code == 0
    assert "fewer than two texts have the 21 tokens" in done.err
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["models"][0]["reading"] is None


class TestMistakes:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "an empty corpus"),
            ([{"text": "alone"}], "one text (a .txt or .md file is one"),
            ([{"text": ""}, {"text": " "}], "2 texts, all of them empty"),
            ([{"text": ""}, {"text": "x"}, {"text": " "}], "3 texts, 1 of them not empty"),
        ],
    )
    def test_of_texts(
        self,
        llm2comp_command: Command,
        saved_model: Path,
        write_lines: Callable[..., Path],
        tmp_path: Path,
        rows: list[Any],
        message: str,
    ) -> None:
        corpus = write_lines(tmp_path / "few.jsonl", rows)
        self.refused(llm2comp_command("analyze", saved_model, corpus, "-o", tmp_path / "out"), f"{corpus}: {message}")

    def test_of_models(
        self, llm2comp_command: Command, saved_model: Path, exported_model: Path, corpus: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        self.refused(llm2comp_command("analyze", "nowhere", corpus, "-o", out), "no model at 'nowhere'")
        done = llm2comp_command("analyze", saved_model, corpus, "-o", out, "--against", tmp_path)
        self.refused(done, "has no llm2comp.json")
        assert "encoding" not in done.err
        self.refused(
            llm2comp_command("analyze", exported_model, corpus, "-o", out, "--reader", BACKBONE),
            "has no memory tokens that the reader",
        )
        broken = shutil.copytree(exported_model, tmp_path / "broken")
        (broken / "model.safetensors").write_bytes(b"nothing")
        self.refused(
            llm2comp_command("analyze", broken, corpus, "-o", out), "cannot be loaded as a sentence-transformers model"
        )

    def test_of_readers(self, llm2comp_command: Command, saved_model: Path, corpus: Path, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        arguments = ("analyze", saved_model, corpus, "-o", tmp_path / "out", "--device", "cpu", "--reader")
        self.refused(llm2comp_command(*arguments, saved_model), "is an encoder already, not a language model")
        other = shutil.copytree(BACKBONE, tmp_path / "other")
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        first, second, *_ = [token for token, number in tokenizer["model"]["vocab"].items() if number > 200]
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        assert AutoTokenizer.from_pretrained(other).get_vocab() != AutoTokenizer.from_pretrained(BACKBONE).get_vocab()
        self.refused(llm2comp_command(*arguments, other), "has another vocabulary than the encoder")

    def test_of_pairs(
        self,
        llm2comp_command: Command,
        saved_model: Path,
        corpus: Path,
        write_lines: Callable[..., Path],
        tmp_path: Path,
    ) -> None:
        for rows, message in (([{"query": "x"}], "pairs.jsonl:1: no positive"), ([], "no pairs in it")):
            pairs = write_lines(tmp_path / "pairs.jsonl", rows)
            self.refused(
                llm2comp_command("analyze", saved_model, corpus, "-o", tmp_path / "out", "--pairs", pairs), message
            )

    def test_of_folders(self, llm2comp_command: Command, saved_model: Path, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            done = llm2comp_command("analyze", saved_model, corpus, "-o", out)
            self.refused(done, f"{out}: cannot be written to (")
            assert "encoding" not in done.err

    def test_without_matplotlib(
        self,
        llm2comp_command: Command,
        saved_model: Path,
        corpus: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        self.refused(
            llm2comp_command("analyze", saved_model, corpus, "-o", tmp_path / "out"), 'pip install "llm2comp[plot]"'
        )

    @pytest.mark.parametrize("more", [("--limit", "1"), ("--reader-tokens", "20"), ("--dtype", "int8")])
    def test_of_usage(self, llm2comp_command: Command, more: tuple[str, str]) -> None:
        assert llm2comp_command("analyze", "llm2comp-tiny", "texts.jsonl", "-o", "out", *more).code == 2
        assert llm2comp_command("analyze", "llm2comp-tiny", "texts.jsonl").code == 2

    def refused(self, done: Any, message: str) -> None:
        assert (done.code, done.out) == (1, "")
        assert message in done.err
        assert done.err.splitlines()[-1].startswith("llm2comp: error: ")
        assert "Traceback" not in done.err


def test_several_models_and_a_map_of_labels(
    llm2comp_command: Command,
    saved_model: Path,
    exported_model: Path,
    write_lines: Callable[..., Path],
    tmp_path: Path,
) -> None:
    rows = [
        {"id": f"{place}", "text": f"{text} {place}", "queue": f"queue {place % 12}"}
        for place, text in enumerate(TEXTS * 8)
    ]
    corpus, out = write_lines(tmp_path / "tickets.jsonl", [*rows, {"id": "x", "text": "no queue"}]), tmp_path / "out"
    others = ("--against", exported_model, "--against", saved_model, "--against", "llm2comp-tiny")
    arguments = ("--samples", 0, "--device", "cpu", "--labels", "queue")
    done = llm2comp_command("analyze", saved_model, corpus, "-o", out, *others, *arguments)
    assert done.code == 0, done.err
    assert len(json.loads((out / "analysis.json").read_text())["models"]) == 4
    for name in ("spectrum.png", "memory.png", "map.png"):
        assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    wrong = llm2comp_command("analyze", saved_model, corpus, "-o", out, "--labels", "team")
    assert (wrong.code, wrong.err.count("\n")) == (1, 1)
    assert "no document has the field 'team' for --labels; they have queue" in wrong.err


def test_a_map_keeps_groups_together() -> None:
    from llm2comp.analysis.map import label_agreement, lay_out
    from llm2comp.errors import SettingsError

    chance = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 20), 15, axis=0)
    vectors, labels = centres + 0.05 * chance.normal(size=centres.shape), [f"{row // 15}" for row in range(45)]
    points = lay_out(vectors, seed=1)
    assert points.shape == (45, 2)
    np.testing.assert_array_equal(points, lay_out(vectors, seed=1))
    assert label_agreement(points - points.mean(0), labels) > 0.9
    assert label_agreement(vectors, labels) == 1.0
    assert label_agreement(np.eye(2)[[0, 0, 1, 1]], ["a", "b", "a", "b"]) == 0.0
    with pytest.raises(SettingsError, match="a map of 3 texts: give at least 4"):
        lay_out(vectors[:3])


def test_what_a_map_cannot_be_drawn_of_is_said_before_anything_is_encoded(
    llm2comp_command: Command, saved_model: Path, write_lines: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"id": f"{place}", "text": text, "queue": "a"} for place, text in enumerate(TEXTS[:3])]
    corpus = write_lines(tmp_path / "tickets.jsonl", rows)
    done = llm2comp_command("analyze", saved_model, corpus, "-o", tmp_path / "out", "--labels", "queue")
    assert done.code == 1
    assert "tickets.jsonl: 3 texts that are not empty; a map (--labels) takes at least 4" in done.err
    assert "encoding" not in done.err


def test_any_label_stands_in_the_legend(
    tmp_path: Path, write_lines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    from llm2comp.analysis.map import plot_map
    from llm2comp.analysis.report import AnalysisSettings, _read_texts

    values = ["$5 to $\\alpha", "_hidden", None, ""]
    rows = [{"id": f"{place}", "text": f"text {place}", "x$y$": value} for place, value in enumerate(values)]
    settings = AnalysisSettings(corpus=str(write_lines(tmp_path / "rows.jsonl", rows)), labels="x$y$")
    _, labels, _ = _read_texts(settings)
    assert labels == [*values[:2], "(none)", "(none)"]
    shown: list[str] = []
    legend = Figure.legend
    monkeypatch.setattr(
        Figure, "legend", lambda self, *args, **more: shown.extend(args[1]) or legend(self, *args, **more)
    )
    plot_map([("$model$", np.eye(4))], labels, tmp_path / "map.png", field="x$y$")
    assert set(shown) == {" _hidden", "$5 to $\\alpha".replace("$", r"\$"), "(none)"}
