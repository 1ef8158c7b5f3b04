"""Every damage to a model folder is named in one line before anything of it is used."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import llm2comp
from llm2comp.errors import BackboneError, LLM2CompError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from tests.conftest import BACKBONE
from tests.test_model_folder import config_of, load


def relist(folder: Path) -> None:
    """Makes the checksums fit what is there, as one would who wants damage to go unnoticed."""
    config = config_of(folder)
    config["files"] = {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in config["files"]
        if (folder / name).is_file()
    }
    (folder / "llm2comp.json").write_text(json.dumps(config))


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

    @pytest.mark.parametrize(
        "name",
        [
            "memory_tokens.safetensors",
            "adapter/adapter_model.safetensors",
            "backbone/model.safetensors",
            "tokenizer.json",
        ],
    )
    def test_a_file_that_is_missing_cut_short_or_altered(self, model_folder: Path, name: str) -> None:
        path = model_folder / name
        whole = path.read_bytes()
        path.unlink()
        self.refused(model_folder, f"{path} is missing: copy the model folder again")
        path.write_bytes(whole[:-1])
        self.refused(
            model_folder, f"{path} has {len(whole) - 1} bytes, {len(whole)} were written: copy the model folder again"
        )
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

    def test_every_file_is_checked_before_any_is_read(
        self, model_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from llm2comp import model_folder as module

        monkeypatch.setattr(module, "load_file", lambda *_: pytest.fail("read before the check was over"))
        path = model_folder / "tokenizer_config.json"
        path.write_text(path.read_text() + " ")
        self.refused(model_folder, str(path))

    @pytest.mark.parametrize(
        "name",
        [
            "more.safetensors",
            "adapter/adapter_model.bin",
            "pytorch_model.bin",
            "backbone/model-00002.safetensors",
            "backbone/x.PKL",
            "x.safetensors",
        ],
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

        for name, pickled in (
            ("adapter/adapter_model", "adapter/adapter_model.bin"),
            ("backbone/model", "backbone/pytorch_model.bin"),
        ):
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
        self.refused(
            tmp_path / "nothing",
            "no model at",
            "give a bundled model (llm2comp-small, llm2comp-tiny), a folder, or a Hub id such as owner/name",
        )
        self.refused(tmp_path / "file", "is not a folder: give a folder written by")
        self.refused(tmp_path / "empty", "has no llm2comp.json: give a folder written by")
        self.refused(
            BACKBONE,
            "has no llm2comp.json",
            f"LLM2Comp.from_backbone({str(BACKBONE)!r}) makes an encoder of a language model",
        )
        self.refused("", "has no llm2comp.json")

    @pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "null", "\x00\x01", '{"format_version": NaN', "{}" * 2])
    def test_a_configuration_that_is_none(self, model_folder: Path, text: str) -> None:
        (model_folder / "llm2comp.json").write_text(text)
        self.refused(
            model_folder,
            str(model_folder / "llm2comp.json"),
            "not a valid model configuration",
            "copy the model folder again",
        )

    def test_a_configuration_that_is_no_text(self, model_folder: Path) -> None:
        (model_folder / "llm2comp.json").write_bytes(b"\xff\xfe{")
        self.refused(model_folder, "not a valid model configuration")

    def test_a_newer_format(self, model_folder: Path) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(format_version=4))
        self.refused(
            model_folder, "model configuration of format 4, this llm2comp reads up to 3: pip install --upgrade llm2comp"
        )
        edited(model_folder, "llm2comp.json", lambda config: config.pop("format_version"))
        self.refused(model_folder, "no format version", "copy the model folder again")

    def test_a_whitening_that_is_no_digest(self, model_folder: Path) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(whitening=True))
        self.refused(model_folder, '"whitening" is')

    @pytest.mark.parametrize(
        "name",
        ["backbone", "memory_tokens", "max_length", "files", "pooling", "query_instruction", "stages", "fingerprint"],
    )
    def test_an_entry_that_is_missing_or_wrong(self, model_folder: Path, name: str) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.pop(name))
        self.refused(model_folder, str(model_folder / "llm2comp.json"), f'"{name}" is')
        for wrong in (None, [1], -1.5, {"size": 1}):
            edited(model_folder, "llm2comp.json", partial(dict.update, **{name: wrong}))
            self.refused(model_folder, f'"{name}" ')

    def test_a_pooling_that_is_none(self, model_folder: Path) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(pooling={"mode": "last"}))
        self.refused(model_folder, "pooling is {'mode': 'last'}", kind=SettingsError)

    @pytest.mark.parametrize(
        "name",
        ["../outside.safetensors", "/etc/passwd", "adapter/../../outside.safetensors", "..\\outside.safetensors"],
    )
    def test_files_outside_the_folder_are_not_touched(self, model_folder: Path, name: str) -> None:
        (model_folder.parent / "outside.safetensors").write_bytes(b"")
        edited(
            model_folder,
            "llm2comp.json",
            lambda config: config["files"].update({name: {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}}),
        )
        self.refused(model_folder, "names a file outside the folder", repr(name))

    @pytest.mark.parametrize("name", ["../backbone", "/tmp/backbone", "a/b/c", "..", "", "backbone/../x", 3])
    def test_a_backbone_outside_the_folder_is_not_loaded(self, model_folder: Path, name: Any) -> None:
        edited(model_folder, "llm2comp.json", lambda config: config.update(backbone={"name": name, "revision": None}))
        self.refused(model_folder, '"backbone" is not "backbone/" or a Hub id as name, and revision')
        edited(model_folder, "llm2comp.json", lambda config: config.update(backbone=name))
        self.refused(model_folder, '"backbone" is not "backbone/"')

    def test_memory_of_another_shape(self, model_folder: Path) -> None:
        save_file({"memory_tokens": torch.zeros(4, 32)}, model_folder / "memory_tokens.safetensors")
        relist(model_folder)
        self.refused(
            model_folder,
            "memory_tokens.safetensors has shape (4, 32), its backbone backbone/ needs (4, 64)",
            kind=BackboneError,
        )
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
    @pytest.mark.parametrize(
        "changes", [{"num_hidden_layers": 2}, {"num_hidden_layers": 4}, {"intermediate_size": 64}], ids=str
    )
    def test_an_adapter_of_another_backbone(self, model_folder: Path, changes: dict[str, Any]) -> None:
        self.other_backbone(model_folder, **changes)
        self.refused(
            model_folder,
            "the adapter in",
            "was made for another backbone than this LlamaForCausalLM",
            "first in base_model",
            kind=BackboneError,
        )

    @pytest.mark.filterwarnings("ignore")
    def test_a_backbone_of_another_width(self, model_folder: Path) -> None:
        self.other_backbone(model_folder, hidden_size=32, head_dim=8)
        self.refused(model_folder, "has shape (4, 64)", "needs (4, 32)", kind=BackboneError)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("{", "cannot load the adapter in"),
            ("{}", "cannot load the adapter in"),
            ('{"peft_type": "PREFIX_TUNING"}', "this package reads LoRA"),
        ],
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
