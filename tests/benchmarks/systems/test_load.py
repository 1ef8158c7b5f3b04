"""Names of systems, their settings in a result file, and errors of wrong names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.backbone.loading import Source
from llm2comp.errors import BackboneError, LLM2CompError, SettingsError
from llm2comp_benchmarks.systems.load import describe_model, load_model, system_names
from llm2comp_benchmarks.systems.poolings import POOLINGS
from llm2comp_benchmarks.systems.random_vectors import RandomVectors
from llm2comp_benchmarks.tasks.encoding import check_kinds
from tests.paths import BACKBONE

NAMES = [
    "bm25",
    "random",
    "last-token:BACKBONE",
    "mean:BACKBONE",
    "weighted-mean:BACKBONE",
    "echo:BACKBONE",
    "prompteol:BACKBONE",
    "metaeol:BACKBONE",
]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("llm2comp.backbone.loading.HfApi.model_info", unreachable)


def test_names() -> None:
    assert set(NAMES) <= set(system_names())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_is_described(pooling: str) -> None:
    described = describe_model(load_model(f"{pooling}:{BACKBONE}"), f"{pooling}:{BACKBONE}")
    assert described["model"] == f"{pooling}:{BACKBONE}"
    assert described["system"] == pooling
    assert described["backbone"] == {"name": str(BACKBONE), "revision": None}
    assert described["dimension"] == 64
    assert described["fingerprint"] is None
    assert described["memory_tokens"] is None
    assert described["parameters"]["prompts"] == POOLINGS[pooling].prompts


def test_systems_without_a_backbone_are_described() -> None:
    pytest.importorskip("bm25s", reason="needs the extra eval")
    bm25, random = (describe_model(load_model(name), name) for name in ("bm25", "random"))
    assert (bm25["system"], bm25["dimension"], bm25["fingerprint"]) == ("bm25", None, None)
    assert (bm25["parameters"]["k1"], bm25["parameters"]["b"], bm25["parameters"]["scoring"]) == (1.2, 0.75, "lucene")
    assert (random["system"], random["dimension"], random["fingerprint"]) == ("random", 256, None)


def test_a_stand_in_is_described_by_what_it_has(encoder: Any) -> None:
    nothing = dict.fromkeys(("parameters", "backbone", "dimension", "fingerprint", "memory_tokens", "max_tokens"))
    assert describe_model(encoder, "folder") == {
        "model": "folder",
        "system": "WordHashes",
        "encoder": {},
        **nothing,
    }
    encoder.fingerprint = "abc"
    assert describe_model(encoder, None)["fingerprint"] == "abc"
    assert describe_model(encoder, None)["model"] == "llm2comp-tiny (bundled)"


def test_our_models_and_those_of_sentence_transformers(saved_model: Path, exported_model: Path) -> None:
    ours, theirs = (describe_model(load_model(str(folder)), str(folder)) for folder in (saved_model, exported_model))
    assert (ours["system"], ours["dimension"], ours["memory_tokens"]) == ("llm2comp", 64, 4)
    assert isinstance(ours["fingerprint"], str)
    assert (theirs["system"], theirs["dimension"], theirs["fingerprint"]) == ("sentence-transformers", 64, None)


def test_a_hub_id_is_ours_if_it_has_our_file(
    saved_model: Path, exported_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"org/ours": saved_model, "org/theirs": exported_model, "org/language-model": BACKBONE}
    monkeypatch.setattr(
        "llm2comp.backbone.loading.find_source", lambda name, revision=None: Source(name, "abc", str(places[name]))
    )
    monkeypatch.setattr(
        "llm2comp.model_folder.find_source", lambda name, revision=None: Source(name, "abc", str(places[name]))
    )
    assert describe_model(load_model("org/ours"), "org/ours")["system"] == "llm2comp"
    assert describe_model(load_model("org/theirs"), "org/theirs")["system"] == "sentence-transformers"
    with pytest.raises(SettingsError, match="mean:org/language-model"):
        load_model("org/language-model")


def test_a_hub_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any, **__: Any) -> None:
        raise OSError("timed out")

    monkeypatch.setattr("llm2comp.backbone.loading.find_source", lambda name, revision=None: Source(name, "abc", name))
    monkeypatch.setattr("huggingface_hub.file_exists", silent)
    with pytest.raises(LLM2CompError, match="the Hub stopped answering"):
        load_model("org/model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "meen:backbone",
            "no system is called 'meen': before a colon stands one of last-token, mean, weighted-mean, echo, "
            "prompteol, metaeol",
        ),
        ("mean:", "mean: the language model is missing"),
        ("./not/there", "there is no such folder, and it is no Hub id; give .* bm25, random, last-token:BACKBONE"),
        ("a/b/c", "there is no such folder, and it is no Hub id"),
        (str(BACKBONE), "is no encoder .* pool it: mean:"),
    ],
)
def test_a_name_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_model(name)


@pytest.mark.usefixtures("no_network")
def test_a_name_that_nothing_answers_to() -> None:
    with pytest.raises(
        SettingsError,
        match=r"no model 'bm52': .* the Hub did not answer .* give the folder or Hub id of a model, bm25, random",
    ):
        load_model("bm52")
    with pytest.raises(BackboneError, match="no model 'org/not-there'"):
        load_model("mean:org/not-there")


def test_a_broken_sentence_transformers_folder(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[", encoding="utf-8")
    with pytest.raises(LLM2CompError, match="cannot load the sentence-transformers model"):
        load_model(str(tmp_path))


def test_a_system_without_vectors_is_refused_other_tasks(encoder: Any) -> None:
    pytest.importorskip("bm25s", reason="needs the extra eval")
    check_kinds(load_model("bm25"), [])
    check_kinds(encoder, ["stsb"])
    with pytest.raises(SettingsError, match="bm25 ranks documents and has no vectors: it cannot do stsb, banking77"):
        check_kinds(load_model("bm25"), ["stsb", "banking77"])


def test_random_vectors_depend_on_the_text_alone() -> None:
    texts = [f"text {number}" for number in range(200)]
    vectors = RandomVectors().encode_document(texts)
    assert np.array_equal(vectors[[3, 1]], RandomVectors().encode_query(["text 3", "text 1"], batch_size=1))
    assert vectors.shape == (200, 256)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = (vectors @ vectors.T)[np.triu_indices(200, 1)]
    # On the sphere the cosine has mean 0 and variance 1/dimension; 19,900 pairs.
    assert abs(cosines.mean()) < 0.005
    assert cosines.std() == pytest.approx(256**-0.5, rel=0.05)
