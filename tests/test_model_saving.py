"""Saving: the whole folder or nothing, also when it is interrupted."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import ModelFolderError
from llm2comp.model import LLM2Comp
from tests.test_model_folder import TEXTS, load, snapshot


class TestSaving:
    def test_replaces_a_model_whole(self, model_folder: Path, make_model: Callable[..., LLM2Comp]) -> None:
        (model_folder / "README.md").write_text("a card written by hand")
        (model_folder / ".git").mkdir()
        (model_folder / ".git" / "HEAD").write_text("kept")
        (model_folder / "left over.txt").write_text("of the old model")
        other = make_model(adapter=None, memory_tokens=2)
        other.save(model_folder)
        assert np.array_equal(load(model_folder).encode(TEXTS), other.encode(TEXTS))
        assert not (model_folder / "adapter").exists()
        assert not (model_folder / "left over.txt").exists()
        assert (model_folder / "README.md").read_text() == "a card written by hand"
        assert (model_folder / ".git" / "HEAD").read_text() == "kept"

    def test_into_itself(self, model_folder: Path) -> None:
        loaded = load(model_folder)
        expected = loaded.encode(TEXTS)
        loaded.save(model_folder)
        assert np.array_equal(load(model_folder).encode(TEXTS), expected)

    def test_writes_the_adapter_the_same_way_in_every_process(self, model: LLM2Comp, tmp_path: Path) -> None:
        model.save(tmp_path / "model")
        layers = json.loads((tmp_path / "model/adapter/adapter_config.json").read_text())["target_modules"]
        assert len(layers) > 4  # a set in an order of its own is all but never a sorted one
        assert layers == sorted(layers)

    def test_makes_parents_and_takes_an_empty_folder(self, model: LLM2Comp, tmp_path: Path) -> None:
        model.save(tmp_path / "a" / "b" / "model")
        (tmp_path / "empty").mkdir()
        model.save(str(tmp_path / "empty"))
        assert load(tmp_path / "empty").fingerprint == load(tmp_path / "a" / "b" / "model").fingerprint

    def test_through_a_link(self, model: LLM2Comp, tmp_path: Path) -> None:
        model.save(tmp_path / "real")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        model.save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert load(tmp_path / "real").fingerprint == model.fingerprint

    def test_leaves_what_is_no_model_alone(self, model: LLM2Comp, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
        (tmp_path / "file").write_text("text")
        for target in (tmp_path / "thesis", tmp_path / "file"):
            before = snapshot(tmp_path)
            with pytest.raises(
                ModelFolderError, match=f"{target.name} exists and holds no llm2comp model; give a new or empty folder"
            ):
                model.save(target)
            assert snapshot(tmp_path) == before

    @pytest.mark.parametrize(
        "error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError("anything")], ids=repr
    )
    @pytest.mark.parametrize("existing", [True, False])
    def test_an_error_on_the_way_leaves_everything_as_it_was(
        self, model: LLM2Comp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, existing: bool
    ) -> None:
        from llm2comp import model_saving

        target = tmp_path / "new" / "model"
        if existing:
            model.save(target)
        before = snapshot(tmp_path)

        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(model_saving, "write_config", fail)
        with pytest.raises(
            ModelFolderError if isinstance(error, OSError) else error if isinstance(error, type) else type(error)
        ) as raised:
            model.save(target)
        if isinstance(error, OSError):
            assert "the model cannot be saved there ([Errno 28] No space left on device); nothing stays behind" in str(
                raised.value
            )
        assert snapshot(tmp_path) == before
        assert list(tmp_path.rglob(".*")) == []
        assert (tmp_path / "new").exists() is existing

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
        )

    def test_no_space_left(self, saved_model: Path, tmp_path: Path) -> None:
        """A limit on file sizes stands in for a full disk: the memory tokens fit, the language model does not."""
        finished = self.run(
            """
            import resource, sys, llm2comp
            model = llm2comp.load(sys.argv[1], device="cpu", dtype="float32")
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                model.save(sys.argv[2])
            except llm2comp.errors.ModelFolderError as error:
                print(error)
            """,
            saved_model,
            tmp_path / "sub" / "model",
        )
        assert finished.returncode == 0, finished.stderr
        assert "the model cannot be saved there" in finished.stdout
        assert "too large" in finished.stdout
        assert finished.stdout.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_killed_on_the_way(self, saved_model: Path, model_folder: Path, model: LLM2Comp) -> None:
        """The old model stays whole, and the next save removes the rest of the killed one."""
        before = snapshot(model_folder)
        finished = self.run(
            """
            import os, signal, sys, llm2comp
            from llm2comp import model_saving
            model = llm2comp.load(sys.argv[1], device="cpu", dtype="float32")
            model_saving.write_config = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            model.save(sys.argv[2])
            """,
            saved_model,
            model_folder,
        )
        assert finished.returncode == -signal.SIGKILL, finished.stderr
        assert snapshot(model_folder) == before
        left = [path.name for path in model_folder.parent.iterdir() if path.name != model_folder.name]
        assert left == [".model.saving"]
        assert load(model_folder).fingerprint == model.fingerprint
        model.save(model_folder)
        assert [path.name for path in model_folder.parent.iterdir()] == [model_folder.name]

    def test_killed_between_the_two_renames(self, model_folder: Path, make_model: Callable[..., LLM2Comp]) -> None:
        """The old model, already renamed, is restored, and the next save starts from it."""
        model_folder.rename(model_folder.parent / ".model.replaced")
        make_model(memory_tokens=2).save(model_folder)
        assert load(model_folder).memory_tokens == 2
        assert [path.name for path in model_folder.parent.iterdir()] == [model_folder.name]

    def test_two_at_once(self, model: LLM2Comp, tmp_path: Path) -> None:
        from llm2comp.atomic import staged_folder

        with staged_folder(tmp_path / "model") as stage:
            (stage / "file").write_text("first")
            with pytest.raises(ModelFolderError, match="another process is saving a model there"):
                model.save(tmp_path / "model")
        assert snapshot(tmp_path / "model").keys() == {"file"}

    def test_a_folder_that_cannot_be_made(self, model: LLM2Comp, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("text")
        with pytest.raises(
            ModelFolderError, match="file/model: the model cannot be saved there .*Not a directory.*give another folder"
        ):
            model.save(tmp_path / "file" / "model")
        assert (tmp_path / "file").read_text() == "text"
