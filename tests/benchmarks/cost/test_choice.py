"""The benchmark of models: an encoder of MiniLM's shape, models in turn, and the table."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.choice.minilm import make_minilm
from llm2comp_benchmarks.cost.choice.run import ChoiceBenchmark, run_choice_benchmark
from llm2comp_benchmarks.cost.choice.tables import format_choice

WORDS = [
    "river",
    "stone",
    "moon",
    "field",
    "light",
    "tide",
    "bread",
    "market",
    "ticket",
    "train",
    "museum",
    "path",
    "copper",
    "window",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"_id": str(row), "text": " ".join((WORDS[row % len(WORDS) :] + WORDS) * 3)} for row in range(30)]
    file = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_the_other_encoder_has_the_shape_of_minilm(tmp_path: Path) -> None:
    make_minilm(tmp_path / "m", [" ".join(WORDS)] * 5)
    model = SentenceTransformer(str(tmp_path / "m" / "model"), device="cpu")
    parameters = {name: tuple(weight.shape) for name, weight in model[0].auto_model.named_parameters()}
    assert sum(np.prod(shape) for shape in parameters.values()) == 22_713_216  # as the card of all-MiniLM-L6-v2 says
    assert (model.max_seq_length, model.get_embedding_dimension()) == (256, 384)
    vectors = model.encode(["river stone", "moon " * 1000])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.slow
def test_models_stand_beside_the_first(saved_model: Path, corpus: Path, tmp_path: Path) -> None:
    settings = ChoiceBenchmark(tmp_path, (str(saved_model),), (str(corpus),), short=20, long=3, threads=1, rounds=2)
    record = run_choice_benchmark(settings)
    names = [name for name, entry in record.items() if isinstance(entry, dict) and "beside" in entry]
    assert names[0].startswith(saved_model.name)
    assert names[1] == "MiniLM-L6 float32"
    ours, other = record[names[0]], record[names[1]]
    assert ours["speed"]["short"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert other["speed"]["long"]["median"] > 0
    assert other["tokens"]["long"] == 3 * 256
    assert ours["dimension"] == 64
    assert {"versions", "hardware", "commit"} <= record.keys()
    table = format_choice(record).splitlines()
    assert [line.split()[0] for line in table[1:]] == [name.split()[0] for name in names]


def test_no_texts_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="short"):
        ChoiceBenchmark(tmp_path, short=0)
