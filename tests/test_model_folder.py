"""Saving and loading: the same vectors back, nothing half-written, and every damage named in one line."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.adapter import AdapterSettings
from llm2comp.errors import BackboneError, LLM2CompError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from tests.conftest import BACKBONE, QUERY_INSTRUCTION

TEXTS = ["A text.", "", "Another text, which is longer than the first.", "🍵"]


def load(folder: Path, dtype: str = "float32") -> LLM2Comp:
    return llm2comp.load(folder, device="cpu", dtype=dtype)


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "llm2comp.json").read_text())
    return config


def relist(folder: Path) -> None:
    """Makes the checksums fit what is there, as one would who wants damage to go unnoticed."""
    config = config_of(folder)
    config["files"] = {
        name: {"size": (folder / name).stat().st_size, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in config["files"]
        if (folder / name).is_file()
    }
    (folder / "llm2comp.json").write_text(json.dumps(config))


def snapshot(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


class TestRoundTrip:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"adapter": None},
            {"adapter": AdapterSettings(rank=2, alpha=64, targets=("q_proj", "k_proj"))},
            {"pooling": {"mode": "cluster", "threshold": 0.6}},
            {"normalize": False, "query_instruction": ""},
            {"memory_tokens": 1, "max_length": 20},
            {"dtype": "bfloat16"},
        ],
        ids=str,
    )
    def test_identical_vectors_and_fingerprint(self, make_model: Callable[..., LLM2Comp], tmp_path: Path, options: dict[str, Any]) -> None:
        model = make_model(**options)
        model.stages = ["compression", "supervised"]
        model.save(tmp_path / "model")
        loaded = load(tmp_path / "model", options.get("dtype", "float32"))
        for encode in ("encode", "encode_query", "encode_document", "encode_memory"):
            assert np.array_equal(getattr(loaded, encode)(TEXTS), getattr(model, encode)(TEXTS))
        assert loaded.fingerprint == model.fingerprint == config_of(tmp_path / "model")["fingerprint"]
        assert loaded.stages == model.stages
        loaded.changed()
        assert loaded.fingerprint == model.fingerprint  # made anew from what was loaded
        loaded.save(tmp_path / "again")
        assert config_of(tmp_path / "again")["fingerprint"] == model.fingerprint
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_the_reader_comes_back_too(self, model: LLM2Comp, saved_model: Path) -> None:
        with torch.no_grad():
            embedded = model.encoder.backbone.embed(torch.arange(3, 12))
            expected = model.encoder.backbone.read(embedded, [9])
            assert torch.equal(load(saved_model).encoder.backbone.read(embedded, [9]), expected)

    def test_a_loaded_model_can_be_trained_on(self, saved_model: Path, model: LLM2Comp) -> None:
        loaded = load(saved_model)
        assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == {
            name for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    def test_layout(self, saved_model: Path) -> None:
        top = {path.name for path in saved_model.iterdir()}
        assert {"llm2comp.json", "memory_tokens.safetensors", "adapter", "backbone", "tokenizer.json", "modules.json", "README.md"} <= top
        config = config_of(saved_model)
        assert config["format_version"] == 1
        assert config["backbone"] == "backbone/"
        assert (config["memory_tokens"], config["max_length"], config["pooling"]) == (4, 64, {"mode": "mean"})
        assert config["query_instruction"] == QUERY_INSTRUCTION
        unlisted = {path.relative_to(saved_model).as_posix() for path in saved_model.rglob("*") if path.is_file()} - set(config["files"])
        assert unlisted == {"llm2comp.json", "README.md"}
        assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in saved_model.rglob("*"))
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in saved_model.rglob("*") if path.is_file())
        assert str(BACKBONE) not in "".join(path.read_text() for path in saved_model.rglob("*.json"))

    def test_moving_and_renaming_a_folder(self, model_folder: Path, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
        (model_folder.parent / "elsewhere").mkdir()
        moved = model_folder.rename(model_folder.parent / "elsewhere" / "name with spaces é")
        monkeypatch.chdir(moved.parent)
        assert np.array_equal(load(Path(moved.name)).encode(TEXTS), model.encode(TEXTS))
        monkeypatch.chdir(moved)
        assert np.array_equal(load(Path(".")).encode(TEXTS), model.encode(TEXTS))

    def test_sentence_transformers_reads_it(self, saved_model: Path, model: LLM2Comp, tmp_path: Path) -> None:
        plain = SentenceTransformer(str(saved_model), trust_remote_code=True, device="cpu")
        assert np.array_equal(plain.encode(TEXTS), model.encode(TEXTS))
        assert np.array_equal(plain.encode_query(TEXTS), model.encode_query(TEXTS))
        plain.save(str(tmp_path / "by it"), create_model_card=False)
        again = SentenceTransformer(str(tmp_path / "by it"), trust_remote_code=True, device="cpu", model_kwargs={"dtype": torch.bfloat16})
        assert again[0].backbone.dtype == torch.bfloat16
        with pytest.raises(ModelFolderError, match=r"lacks or misstates pooling .*, query_instruction"):
            load(tmp_path / "by it")

    def test_clusters_are_read_by_sentence_transformers(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model(pooling={"mode": "cluster", "threshold": 0.6})
        model.save(tmp_path / "model")
        plain = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
        assert np.array_equal(plain.encode(TEXTS), model.encode(TEXTS))

    def test_loading_and_saving_say_nothing(self, saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        loaded = load(saved_model)
        loaded.encode(TEXTS)
        loaded.save(tmp_path / "model")
        assert capfd.readouterr() == ("", "")

    def test_a_backbone_of_the_hub_is_named_and_not_copied(self, make_model: Callable[..., LLM2Comp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from llm2comp import backbone as backbone_module
        from llm2comp.backbone import BackboneReference
        from llm2comp.loading import Source

        model = make_model()
        model.encoder.backbone.reference = BackboneReference("owner/name", "c0ffee")
        model.save(tmp_path / "model")
        assert config_of(tmp_path / "model")["backbone"] == {"name": "owner/name", "revision": "c0ffee"}
        assert not (tmp_path / "model" / "backbone").exists()
        asked = []

        def from_cache(name: str, revision: str | None) -> Source:
            asked.append((name, revision))
            return Source(name, revision, str(BACKBONE))

        monkeypatch.setattr(backbone_module, "find_source", from_cache)
        loaded = load(tmp_path / "model")
        assert asked == [("owner/name", "c0ffee")]
        assert np.array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
        assert loaded.fingerprint == model.fingerprint != make_model().fingerprint
        loaded.changed()
        assert loaded.fingerprint == model.fingerprint
        loaded.encoder.backbone.merge_adapter()
        loaded.save(tmp_path / "merged")
        assert config_of(tmp_path / "merged")["backbone"] == "backbone/"

    def test_training_all_weights_saves_them(self, make_model: Callable[..., LLM2Comp], monkeypatch: pytest.MonkeyPatch) -> None:
        """Also of a backbone that came from the Hub: its name alone would bring back the weights before training."""
        from llm2comp import backbone as backbone_module
        from llm2comp import model as model_module
        from llm2comp.loading import Source

        def found(name: Any, revision: str | None = None) -> Source:
            return Source("owner/name", "c0ffee", str(BACKBONE))

        monkeypatch.setattr(backbone_module, "find_source", found)
        monkeypatch.setattr(model_module, "find_source", found)
        assert make_model(adapter=None).encoder.backbone.reference is None
        assert make_model().encoder.backbone.reference is not None


class TestOtherPrecision:
    @pytest.mark.parametrize("adapter", [AdapterSettings(rank=4), None], ids=["adapter", "all weights"])
    def test_half_the_size_and_the_models_own_untouched(self, make_model: Callable[..., LLM2Comp], tmp_path: Path, adapter: Any) -> None:
        model = make_model(adapter=adapter)
        before, fingerprint = model.encode(TEXTS), model.fingerprint
        model.save(tmp_path / "full")
        model.save(tmp_path / "half", weights_dtype=torch.bfloat16)
        assert np.array_equal(model.encode(TEXTS), before)
        assert model.fingerprint == fingerprint
        for path in (tmp_path / "half").rglob("*.safetensors"):
            assert {tensor.dtype for tensor in load_file(path).values()} == {torch.bfloat16}
            full = tmp_path / "full" / path.relative_to(tmp_path / "half")
            assert path.stat().st_size < 0.6 * full.stat().st_size or full.stat().st_size < 2000

        half = load(tmp_path / "half")
        assert half.fingerprint == config_of(tmp_path / "half")["fingerprint"] != fingerprint
        rounded = make_model(adapter=adapter)
        for parameter in rounded.parameters():
            parameter.data = parameter.data.bfloat16().float()
        rounded.changed()
        assert np.array_equal(half.encode(TEXTS), rounded.encode(TEXTS))
        assert half.fingerprint == rounded.fingerprint

    def test_saving_again_is_the_same_model(self, model: LLM2Comp, tmp_path: Path) -> None:
        model.save(tmp_path / "half", weights_dtype=torch.bfloat16)
        for dtype in ("float32", "bfloat16"):
            loaded = load(tmp_path / "half", dtype)
            loaded.save(tmp_path / dtype)
            assert config_of(tmp_path / dtype)["fingerprint"] == config_of(tmp_path / "half")["fingerprint"]

    def test_a_rounded_copy_of_a_finer_model_is_another(self, saved_model: Path, tmp_path: Path) -> None:
        coarse = load(saved_model, "bfloat16")
        assert coarse.fingerprint == config_of(saved_model)["fingerprint"]  # the same model, read in less precision
        coarse.save(tmp_path / "coarse")
        assert config_of(tmp_path / "coarse")["fingerprint"] != config_of(saved_model)["fingerprint"]
        assert np.array_equal(load(tmp_path / "coarse", "bfloat16").encode(TEXTS), coarse.encode(TEXTS))


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
            with pytest.raises(ModelFolderError, match=f"{target.name} exists and holds no llm2comp model; give a new or empty folder"):
                model.save(target)
            assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError("anything")], ids=repr)
    @pytest.mark.parametrize("existing", [True, False])
    def test_an_error_on_the_way_leaves_everything_as_it_was(
        self, model: LLM2Comp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, existing: bool
    ) -> None:
        from llm2comp import model as model_module

        target = tmp_path / "new" / "model"
        if existing:
            model.save(target)
        before = snapshot(tmp_path)

        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(model_module, "write_config", fail)
        with pytest.raises(ModelFolderError if isinstance(error, OSError) else error if isinstance(error, type) else type(error)) as raised:
            model.save(target)
        if isinstance(error, OSError):
            assert "the model cannot be saved there ([Errno 28] No space left on device); nothing stays behind" in str(raised.value)
        assert snapshot(tmp_path) == before
        assert list(tmp_path.rglob(".*")) == []
        assert (tmp_path / "new").exists() is existing

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], capture_output=True, text=True, timeout=600)

    def test_no_space_left(self, saved_model: Path, tmp_path: Path) -> None:
        """A limit on the size of files stands in for a full disk: the memory tokens fit, the language model does not."""
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
        """The old model stays whole and the next save clears what the killed one left."""
        before = snapshot(model_folder)
        finished = self.run(
            """
            import os, signal, sys, llm2comp
            from llm2comp import model as model_module
            model = llm2comp.load(sys.argv[1], device="cpu", dtype="float32")
            model_module.write_config = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
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
        """The old model, moved aside already, comes back when something fails; the next save starts from there."""
        model_folder.rename(model_folder.parent / ".model.replaced")
        make_model(memory_tokens=2).save(model_folder)
        assert load(model_folder).memory_tokens == 2
        assert [path.name for path in model_folder.parent.iterdir()] == [model_folder.name]

    def test_two_at_once(self, model: LLM2Comp, tmp_path: Path) -> None:
        from llm2comp.staging import staged_folder

        with staged_folder(tmp_path / "model") as stage:
            (stage / "file").write_text("first")
            with pytest.raises(ModelFolderError, match="another process is saving a model there"):
                model.save(tmp_path / "model")
        assert snapshot(tmp_path / "model").keys() == {"file"}

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
    def test_a_folder_that_may_not_be_written(self, model: LLM2Comp, tmp_path: Path) -> None:
        tmp_path.chmod(0o555)
        with pytest.raises(ModelFolderError, match="cannot be saved there .*Permission denied"):
            model.save(tmp_path / "model")


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))


def listed(name: str, config: dict[str, Any]) -> None:
    config["files"][name] = {"size": 0, "sha256": ""}


class TestDamage:
    def refused(self, folder: Path | str, *expected: str, kind: type[LLM2CompError] = ModelFolderError) -> None:
        """By one line that says what is wrong, from whatever library the trouble came."""
        with pytest.raises(kind) as error:
            llm2comp.load(folder, device="cpu", dtype="float32")
        message = str(error.value)
        assert "\n" not in message
        assert len(message) < 700
        for part in expected:
            assert part in message, message

    @pytest.mark.parametrize("name", ["memory_tokens.safetensors", "adapter/adapter_model.safetensors", "backbone/model.safetensors", "tokenizer.json"])
    def test_a_file_that_is_missing_cut_short_or_altered(self, model_folder: Path, name: str) -> None:
        path = model_folder / name
        whole = path.read_bytes()
        path.unlink()
        self.refused(model_folder, f"{path} is missing: copy the model folder again")
        path.write_bytes(whole[:-1])
        self.refused(model_folder, f"{path} has {len(whole) - 1} bytes, {len(whole)} were written: copy the model folder again")
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        self.refused(model_folder, f"{path} is not the file that was written (its SHA-256 differs)")
        path.unlink()
        path.mkdir()
        self.refused(model_folder, f"{path} is missing")

    @pytest.mark.parametrize("name", ["adapter", "backbone"])
    def test_a_folder_that_is_missing(self, model_folder: Path, name: str) -> None:
        shutil.rmtree(model_folder / name)
        self.refused(model_folder, str(model_folder / name), "is missing")
        relist(model_folder)
        if name == "backbone":
            self.refused(model_folder, str(model_folder / name), "is missing")

    def test_every_file_is_checked_before_any_is_read(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from llm2comp import model_folder as module

        monkeypatch.setattr(module, "load_file", lambda *_: pytest.fail("read before the check was over"))
        path = model_folder / "tokenizer_config.json"
        path.write_text(path.read_text() + " ")
        self.refused(model_folder, str(path))

    @pytest.mark.parametrize(
        "name", ["more.safetensors", "adapter/adapter_model.bin", "pytorch_model.bin", "backbone/model-00002.safetensors", "backbone/x.PKL", "x.safetensors"]
    )
    def test_weights_that_are_not_listed(self, model_folder: Path, name: str) -> None:
        (model_folder / name).write_bytes(b"weights")
        self.refused(model_folder, "holds weights that its llm2comp.json does not name", name)

    def test_files_of_the_user_are_no_matter(self, model_folder: Path, model: LLM2Comp) -> None:
        (model_folder / "README.md").write_text("edited")
        (model_folder / "notes.txt").write_text("mine")
        (model_folder / "optimizer.pt").write_text("a trainer's")
        (model_folder / ".gitattributes").write_text("*.safetensors filter=lfs")
        assert load(model_folder).fingerprint == model.fingerprint

    def test_pickles_are_not_opened(self, model_folder: Path, tmp_path: Path) -> None:
        """An adapter or language model in pickles only, listed as if all were well."""
        opened = tmp_path / "opened"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (opened,))

        for name, pickled in (("adapter/adapter_model", "adapter/adapter_model.bin"), ("backbone/model", "backbone/pytorch_model.bin")):
            folder = Path(shutil.copytree(model_folder, tmp_path / name.replace("/", " ")))
            (folder / f"{name}.safetensors").unlink()
            (folder / pickled).write_bytes(pickle.dumps(Trap()))
            edited(folder, "llm2comp.json", partial(listed, pickled))
            relist(folder)
            self.refused(folder, kind=LLM2CompError)
        assert not opened.exists()

    def test_not_a_model(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("text")
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path / "nothing", "no model at", "give a folder, a Hub id such as owner/name, or nothing for the bundled model")
        self.refused(tmp_path / "file", "is not a folder: give a folder written by")
        self.refused(tmp_path / "empty", "has no llm2comp.json: give a folder written by")
        self.refused(BACKBONE, "has no llm2comp.json", f"LLM2Comp.from_backbone({str(BACKBONE)!r}) makes an encoder of a language model")
        self.refused("", "has no llm2comp.json")

    @pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "null", "\x00\x01", '{"format_version": NaN', "{}" * 2])
    def test_a_configuration_that_is_none(self, model_folder: Path, text: str) -> None:
        (model_folder / "llm2comp.json").write_text(text)
        self.refused(model_folder, str(model_folder / "llm2comp.json"), "is not a model configuration", "copy the model folder again")

    def test_a_configuration_that_is_no_text(self, model_folder: Path) -> None:
        (model_folder / "llm2comp.json").write_bytes(b"\xff\xfe{")
        self.refused(model_folder, "is not a model configuration")

    def test_a_newer_format(self, model_folder: Path) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(format_version=2))
        self.refused(model_folder, "has format version 2, this installation reads 1: pip install --upgrade llm2comp")
        edited(model_folder, "llm2comp.json", lambda config: config.pop("format_version"))
        self.refused(model_folder, "has format version None", "copy the model folder again")

    @pytest.mark.parametrize("name", ["backbone", "memory_tokens", "max_length", "files", "pooling", "query_instruction", "stages", "fingerprint"])
    def test_an_entry_that_is_missing_or_wrong(self, model_folder: Path, name: str) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.pop(name))
        self.refused(model_folder, str(model_folder / "llm2comp.json"), f"lacks or misstates {name} (")
        for wrong in (None, [1], -1.5, {"size": 1}):
            edited(model_folder, "llm2comp.json", partial(dict.update, **{name: wrong}))
            self.refused(model_folder, f"lacks or misstates {name} (")

    def test_a_pooling_that_is_none(self, model_folder: Path) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(pooling={"mode": "last"}))
        self.refused(model_folder, "pooling is {'mode': 'last'}", kind=SettingsError)

    @pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "adapter/../../outside.safetensors", "..\\outside.safetensors"])
    def test_files_outside_the_folder_are_not_touched(self, model_folder: Path, name: str) -> None:
        (model_folder.parent / "outside.safetensors").write_bytes(b"")
        edited(model_folder, "llm2comp.json", lambda config: config["files"].update({name: {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}}))
        self.refused(model_folder, "names a file outside the folder", repr(name))

    @pytest.mark.parametrize("name", ["../backbone", "/tmp/backbone", "a/b/c", "..", "", "backbone/../x", 3])
    def test_a_backbone_outside_the_folder_is_not_loaded(self, model_folder: Path, name: Any) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(backbone={"name": name, "revision": None}))
        self.refused(model_folder, 'lacks or misstates backbone ("backbone/" or a Hub id as name, and revision)')
        edited(model_folder, "llm2comp.json", lambda config: config.update(backbone=name))
        self.refused(model_folder, "lacks or misstates backbone")

    def test_memory_of_another_shape(self, model_folder: Path) -> None:
        save_file({"memory_tokens": torch.zeros(4, 32)}, model_folder / "memory_tokens.safetensors")
        relist(model_folder)
        self.refused(model_folder, "memory_tokens.safetensors has shape (4, 32), its backbone backbone/ needs (4, 64)", kind=BackboneError)
        save_file({"something": torch.zeros(4, 64)}, model_folder / "memory_tokens.safetensors")
        relist(model_folder)
        self.refused(model_folder, str(model_folder), "memory_tokens")
        (model_folder / "memory_tokens.safetensors").write_bytes(b"no safetensors")
        relist(model_folder)
        self.refused(model_folder, str(model_folder), "copy the model folder again")

    def other_backbone(self, folder: Path, **changes: Any) -> None:
        from transformers import AutoConfig, LlamaForCausalLM

        config = AutoConfig.from_pretrained(BACKBONE)
        config.update(changes)
        shutil.rmtree(folder / "backbone")
        LlamaForCausalLM(config).save_pretrained(folder / "backbone")
        relist(folder)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("changes", [{"num_hidden_layers": 2}, {"num_hidden_layers": 4}, {"intermediate_size": 64}], ids=str)
    def test_an_adapter_of_another_backbone(self, model_folder: Path, changes: dict[str, Any]) -> None:
        self.other_backbone(model_folder, **changes)
        self.refused(model_folder, "the adapter in", "was made for another backbone than this LlamaForCausalLM", "first in base_model", kind=BackboneError)

    @pytest.mark.filterwarnings("ignore")
    def test_a_backbone_of_another_width(self, model_folder: Path) -> None:
        self.other_backbone(model_folder, hidden_size=32, head_dim=8)
        self.refused(model_folder, "has shape (4, 64)", "needs (4, 32)", kind=BackboneError)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("{", "cannot load the adapter in"), ("{}", "cannot load the adapter in"), ('{"peft_type": "PREFIX_TUNING"}', "this package reads LoRA")],
    )
    def test_an_adapter_configuration_that_is_none(self, model_folder: Path, text: str, expected: str) -> None:
        (model_folder / "adapter" / "adapter_config.json").write_text(text)
        relist(model_folder)
        self.refused(model_folder, str(model_folder / "adapter"), expected, kind=BackboneError)

    def test_backbone_weights_that_are_none(self, model_folder: Path) -> None:
        (model_folder / "backbone" / "model.safetensors").write_bytes(b"no safetensors")
        relist(model_folder)
        self.refused(model_folder, str(model_folder / "backbone"), kind=BackboneError)

    def test_a_tokenizer_that_is_none(self, model_folder: Path) -> None:
        (model_folder / "tokenizer.json").write_text("{")
        relist(model_folder)
        self.refused(model_folder, str(model_folder), "copy the model folder again")

    def test_a_setting_edited_by_hand_changes_the_fingerprint(self, model_folder: Path, model: LLM2Comp) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(query_instruction="ask: "))
        assert load(model_folder).fingerprint != model.fingerprint


class TestHub:
    def test_an_unknown_id_without_network(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        asked = []

        def no_network(*address: Any, **_: Any) -> Any:
            asked.append(address[0])
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        with pytest.raises(ModelFolderError, match=r"no model 'nobody/nothing': there is no such folder, the Hub did not answer") as error:
            llm2comp.load("nobody/nothing")
        assert "\n" not in str(error.value)
        assert len(asked) <= 2  # no retries
        assert capfd.readouterr() == ("", "")

    def test_a_model_of_the_hub(self, saved_model: Path, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
        from llm2comp import model_folder as module
        from llm2comp.loading import Source

        asked: list[dict[str, Any]] = []
        monkeypatch.setattr(module, "find_source", lambda name: Source(name, "c0ffee", name))
        monkeypatch.setattr(module, "hf_hub_download", lambda *given, **options: asked.append({"file": given[1], **options}))

        def download(name: str, **options: Any) -> str:
            asked.append(options)
            return str(saved_model)

        monkeypatch.setattr(module, "snapshot_download", download)
        assert np.array_equal(llm2comp.load("owner/name", device="cpu", dtype="float32").encode(TEXTS), model.encode(TEXTS))
        assert asked[0] == {"file": "llm2comp.json", "revision": "c0ffee"}
        assert asked[1]["revision"] == "c0ffee"
        assert {"*.bin", "*.pkl", "*.pt"} <= set(asked[1]["ignore_patterns"])

    def test_a_language_model_is_no_model_of_this_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.errors import EntryNotFoundError

        from llm2comp import model_folder as module
        from llm2comp.loading import Source

        def absent(*_: Any, **__: Any) -> Any:
            raise EntryNotFoundError("404 Client Error.\nEntry Not Found")

        monkeypatch.setattr(module, "find_source", lambda name: Source(name, "c0ffee", name))
        monkeypatch.setattr(module, "hf_hub_download", absent)
        monkeypatch.setattr(module, "snapshot_download", lambda *_, **__: pytest.fail("gigabytes for nothing"))
        with pytest.raises(ModelFolderError, match=r"'owner/name' is no llm2comp model: .* LLM2Comp.from_backbone\('owner/name'\)"):
            llm2comp.load("owner/name")
