"""Names of models: what is a bundled model, a folder, a Hub id."""

import logging
from pathlib import Path

import pytest

import llm2comp
from llm2comp.bundled_models import (
    DEFAULT_MODEL,
    as_folder,
    bundled_folder,
    bundled_name,
    bundled_names,
    model_names,
    resolve_name,
)
from llm2comp.errors import BackboneError, ModelFolderError
from tests.paths import BACKBONE

pytestmark = pytest.mark.skipif(not bundled_folder().is_dir(), reason="the bundled model is not in this checkout")


def test_the_default_is_one_of_the_bundled_models() -> None:
    assert DEFAULT_MODEL == "llm2comp-tiny"
    assert DEFAULT_MODEL in bundled_names()
    assert "llm2comp-tiny" in model_names()


@pytest.mark.parametrize("name", [None, "llm2comp-tiny"])
def test_the_same_model_by_name_and_without_one(name: str | None) -> None:
    assert bundled_name(name) == "llm2comp-tiny"
    assert Path(resolve_name(name)) == bundled_folder()
    assert llm2comp.load(name, device="cpu").fingerprint == llm2comp.load(bundled_folder(), device="cpu").fingerprint


@pytest.mark.parametrize("name", ["./llm2comp-tiny", "../llm2comp-tiny", "owner/llm2comp-tiny", "LLM2Comp-Tiny", ""])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert bundled_name(name) is None
    assert resolve_name(name) == name


def test_a_path_is_always_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("llm2comp-tiny"), "./llm2comp-tiny"):
        assert bundled_name(folder) is None
        with pytest.raises(ModelFolderError, match=r"no model at .*llm2comp-tiny': give a bundled model"):
            llm2comp.load(folder)
    Path("llm2comp-tiny").mkdir()
    for folder in (Path("llm2comp-tiny"), "./llm2comp-tiny", "llm2comp-tiny/"):
        with pytest.raises(ModelFolderError, match=r"has no llm2comp\.json"):
            llm2comp.load(folder)


def test_a_model_folder_of_that_name_is_not_used_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llm2comp-tiny").mkdir()
    with caplog.at_level(logging.WARNING):
        assert Path(resolve_name("llm2comp-tiny")) == bundled_folder()
    assert not caplog.messages  # of a training run, say, which is no model
    Path("llm2comp-tiny/llm2comp.json").touch()
    with caplog.at_level(logging.WARNING):
        assert Path(resolve_name("llm2comp-tiny")) == bundled_folder()
    assert caplog.messages == [
        "llm2comp-tiny is the bundled model; the folder of that name in the working directory is ./llm2comp-tiny"
    ]


@pytest.mark.parametrize("name", ["llm2comp-tny", "tiny\0", "x" * 400, "/nowhere/model", "./nowhere", "a/b/c"])
def test_an_unknown_name_lists_the_bundled_ones(name: str) -> None:
    with pytest.raises(ModelFolderError) as error:
        llm2comp.load(name)
    assert str(error.value) == (
        f"no model at {name!r}: give a bundled model (llm2comp-small, llm2comp-tiny), a folder, or a Hub id such as "
        "owner/name"
    )


def test_a_folder_as_a_text_that_means_it() -> None:
    assert as_folder(Path("llm2comp-tiny")) == "./llm2comp-tiny"
    assert as_folder(Path("models/llm2comp-tiny")) == "models/llm2comp-tiny"
    assert as_folder("/models/tiny") == "/models/tiny"


def test_what_training_starts_from(saved_model: Path, tmp_path: Path) -> None:
    from llm2comp.model_folder import find_trained

    assert find_trained("llm2comp-tiny") == bundled_folder()
    assert find_trained(str(saved_model)) == saved_model
    assert find_trained(BACKBONE) is None
    assert find_trained("gpt2") is None
    assert find_trained(tmp_path / "nothing") is None


def test_a_trained_model_on_the_hub_is_one_to_train_further(saved_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2comp import model_folder
    from llm2comp.backbone.loading import Source

    there = {"owner/encoder": True, "owner/language-model": False}
    monkeypatch.setattr(model_folder, "find_source", lambda name: Source(name, "c0ffee", name))
    monkeypatch.setattr(model_folder, "file_exists", lambda name, file, revision: there[name])
    monkeypatch.setattr(model_folder, "hf_hub_download", lambda *_, **__: "")
    monkeypatch.setattr(model_folder, "snapshot_download", lambda *_, **__: str(saved_model))
    assert model_folder.find_trained("owner/encoder") == saved_model
    assert model_folder.find_trained("owner/language-model") is None


def test_the_bundled_model_is_no_language_model() -> None:
    with pytest.raises(BackboneError, match="is an encoder already, not a language model"):
        llm2comp.LLM2Comp.from_backbone("llm2comp-tiny")
