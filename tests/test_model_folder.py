"""Saving and loading: the same vectors back, nothing half-written, and every damage named in one line."""

import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import ModelFolderError
from llm2comp.model import LLM2Comp
from tests.conftest import BACKBONE, QUERY_INSTRUCTION

TEXTS = ["A text.", "", "Another text, which is longer than the first.", "🍵"]


def load(folder: Path, dtype: str = "float32") -> LLM2Comp:
    return llm2comp.load(folder, device="cpu", dtype=dtype)


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "llm2comp.json").read_text())
    return config


def snapshot(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


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
    def test_identical_vectors_and_fingerprint(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path, options: dict[str, Any]
    ) -> None:
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
        assert {
            "llm2comp.json",
            "memory_tokens.safetensors",
            "adapter",
            "backbone",
            "tokenizer.json",
            "modules.json",
            "README.md",
        } <= top
        config = config_of(saved_model)
        assert config["format_version"] == 1
        assert config["backbone"] == "backbone/"
        assert (config["memory_tokens"], config["max_length"], config["pooling"]) == (4, 64, {"mode": "mean"})
        assert config["query_instruction"] == QUERY_INSTRUCTION
        unlisted = {
            path.relative_to(saved_model).as_posix() for path in saved_model.rglob("*") if path.is_file()
        } - set(config["files"])
        assert unlisted == {"llm2comp.json", "README.md"}
        assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in saved_model.rglob("*"))
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in saved_model.rglob("*") if path.is_file())
        assert str(BACKBONE) not in "".join(path.read_text() for path in saved_model.rglob("*.json"))

    def test_moving_and_renaming_a_folder(
        self, model_folder: Path, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
        again = SentenceTransformer(
            str(tmp_path / "by it"), trust_remote_code=True, device="cpu", model_kwargs={"dtype": torch.bfloat16}
        )
        assert again[0].backbone.dtype == torch.bfloat16
        with pytest.raises(ModelFolderError, match='"pooling" is missing; "query_instruction" is missing'):
            load(tmp_path / "by it")

    def test_clusters_are_read_by_sentence_transformers(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path
    ) -> None:
        model = make_model(pooling={"mode": "cluster", "threshold": 0.6})
        model.save(tmp_path / "model")
        plain = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
        assert np.array_equal(plain.encode(TEXTS), model.encode(TEXTS))

    def test_loading_and_saving_say_nothing(
        self, saved_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        loaded = load(saved_model)
        loaded.encode(TEXTS)
        loaded.save(tmp_path / "model")
        assert capfd.readouterr() == ("", "")

    def test_a_backbone_of_the_hub_is_named_and_not_copied(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from llm2comp.backbone import backbone as backbone_module
        from llm2comp.backbone.backbone import BackboneReference
        from llm2comp.backbone.loading import Source

        model = make_model()
        model.encoder.backbone.reference = BackboneReference("owner/name", "c0ffee")
        model.save(tmp_path / "model")
        assert config_of(tmp_path / "model")["backbone"] == {"name": "owner/name", "revision": "c0ffee"}
        assert not (tmp_path / "model" / "backbone").exists()
        asked = []

        def from_cache(name: str, revision: str | None, **_: Any) -> Source:
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

    def test_training_all_weights_saves_them(
        self, make_model: Callable[..., LLM2Comp], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also of a backbone that came from the Hub: its name alone would bring back the weights before training."""
        from llm2comp import model as model_module
        from llm2comp.backbone import backbone as backbone_module
        from llm2comp.backbone.loading import Source

        def found(name: Any, revision: str | None = None, **_: Any) -> Source:
            return Source("owner/name", "c0ffee", str(BACKBONE))

        monkeypatch.setattr(backbone_module, "find_source", found)
        monkeypatch.setattr(model_module, "find_source", found)
        assert make_model(adapter=None).encoder.backbone.reference is None
        assert make_model().encoder.backbone.reference is not None


class TestOtherPrecision:
    @pytest.mark.parametrize("adapter", [AdapterSettings(rank=4), None], ids=["adapter", "all weights"])
    def test_half_the_size_and_the_models_own_untouched(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path, adapter: Any
    ) -> None:
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


class TestHub:
    def test_an_unknown_id_without_network(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        asked = []

        def no_network(*address: Any, **_: Any) -> Any:
            asked.append(address[0])
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        with pytest.raises(
            ModelFolderError, match=r"no model 'nobody/nothing': there is no such folder, the Hub did not answer"
        ) as error:
            llm2comp.load("nobody/nothing")
        assert "\n" not in str(error.value)
        assert len(asked) <= 2  # no retries
        assert capfd.readouterr() == ("", "")

    def test_a_model_of_the_hub(self, saved_model: Path, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
        from llm2comp import model_folder as module
        from llm2comp.backbone.loading import Source

        asked: list[dict[str, Any]] = []
        monkeypatch.setattr(module, "find_source", lambda name: Source(name, "c0ffee", name))
        monkeypatch.setattr(
            module, "hf_hub_download", lambda *given, **options: asked.append({"file": given[1], **options})
        )

        def download(name: str, **options: Any) -> str:
            asked.append(options)
            return str(saved_model)

        monkeypatch.setattr(module, "snapshot_download", download)
        assert np.array_equal(
            llm2comp.load("owner/name", device="cpu", dtype="float32").encode(TEXTS), model.encode(TEXTS)
        )
        assert asked[0] == {"file": "llm2comp.json", "revision": "c0ffee"}
        assert asked[1]["revision"] == "c0ffee"
        assert {"*.bin", "*.pkl", "*.pt"} <= set(asked[1]["ignore_patterns"])

    def test_a_language_model_is_no_model_of_this_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.errors import EntryNotFoundError

        from llm2comp import model_folder as module
        from llm2comp.backbone.loading import Source

        def absent(*_: Any, **__: Any) -> Any:
            raise EntryNotFoundError("404 Client Error.\nEntry Not Found")

        monkeypatch.setattr(module, "find_source", lambda name: Source(name, "c0ffee", name))
        monkeypatch.setattr(module, "hf_hub_download", absent)
        monkeypatch.setattr(module, "snapshot_download", lambda *_, **__: pytest.fail("gigabytes for nothing"))
        with pytest.raises(
            ModelFolderError, match=r"'owner/name' is no llm2comp model: .* LLM2Comp.from_backbone\('owner/name'\)"
        ):
            llm2comp.load("owner/name")


def test_a_folder_whose_name_is_not_utf_8_is_refused_in_words(model_folder: Path, tmp_path: Path) -> None:
    """The library that reads and writes weights takes no other names."""
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        model_folder.rename(strange)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(ModelFolderError, match="not UTF-8.*rename it"):
        llm2comp.load(strange)
