"""Names of models: what is a bundled model, a folder, a Hub id."""

import logging
from pathlib import Path

import pytest

import llm2comp
from llm2comp.bundled_models import (
    DEFAULT_MODEL,
    bundled_folder,
    bundled_name,
    bundled_names,
    model_names,
    resolve_name,
)
from llm2comp.errors import ModelFolderError

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
        f"no model at {name!r}: give a bundled model (llm2comp-tiny), a folder, or a Hub id such as owner/name"
    )
