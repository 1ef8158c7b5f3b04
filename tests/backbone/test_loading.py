"""Language models that load, and errors of one line for those that do not."""

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llm2comp.backbone import loading
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.errors import BackboneError
from tests.conftest import BACKBONE


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


class TestLoading:
    def refused(self, name: str | Path, **options: Any) -> str:
        with pytest.raises(BackboneError) as error:
            Backbone.load(name, **options)
        message = str(error.value)
        assert "\n" not in message
        assert len(message) < 600
        assert str(name) in message
        return message

    def test_a_folder(self, backbone_folder: Path) -> None:
        backbone = Backbone.load(backbone_folder)
        assert backbone.reference is None
        assert backbone.dtype == torch.float32
        assert Backbone.load(backbone_folder, dtype=torch.bfloat16).dtype == torch.bfloat16

    def test_says_nothing(self, backbone_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        Backbone.load(backbone_folder).add_adapter(AdapterSettings())
        assert capfd.readouterr() == ("", "")

    def test_leaves_transformers_as_chatty_as_it_was(self, backbone_folder: Path) -> None:
        from transformers.utils import logging

        before = logging.get_verbosity(), logging.is_progress_bar_enabled()
        Backbone.load(backbone_folder)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before

    @pytest.mark.parametrize("bars", [True, False])
    def test_no_bar_counts_weights_on_a_terminal(
        self, backbone_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], bars: bool
    ) -> None:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        monkeypatch.setattr(loading, "on_terminal", lambda: True)
        (enable_progress_bars if bars else disable_progress_bars)()
        try:
            Backbone.load(backbone_folder).add_adapter(AdapterSettings())
            with loading.quiet():  # bars of downloads remain
                assert are_progress_bars_disabled() is not bars
            assert are_progress_bars_disabled() is not bars
        finally:
            enable_progress_bars()
        assert capfd.readouterr() == ("", "")

    def test_no_such_folder(self, tmp_path: Path) -> None:
        message = self.refused(tmp_path / "nothing")
        assert message.endswith("there is no such folder, and no model on the Hub has such a name")

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        self.refused(tmp_path)

    def test_configuration_that_is_no_json(self, backbone_folder: Path) -> None:
        (backbone_folder / "config.json").write_text("{not json")
        assert "not a valid JSON file" in self.refused(backbone_folder)

    def test_configuration_with_nonsense(self, backbone_folder: Path) -> None:
        edit(backbone_folder / "config.json", hidden_size="wide")
        assert "hidden_size" in self.refused(backbone_folder)

    def test_a_model_of_another_kind(self, backbone_folder: Path) -> None:
        edit(backbone_folder / "config.json", model_type="t5")
        self.refused(backbone_folder)

    def test_truncated_weights(self, backbone_folder: Path) -> None:
        path = backbone_folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        self.refused(backbone_folder)

    def test_weights_that_lack_a_layer_are_not_made_up(self, backbone_folder: Path) -> None:
        edit(backbone_folder / "config.json", num_hidden_layers=4)
        message = self.refused(backbone_folder)
        assert "its files hold no weights for model.layers.3." in message
        assert "and 8 more" in message

    def test_weights_of_another_shape(self, backbone_folder: Path) -> None:
        edit(backbone_folder / "config.json", intermediate_size=64)
        assert "weights of another shape for model.layers.0.mlp" in self.refused(backbone_folder)

    def test_pickles_are_not_opened(self, backbone_folder: Path, tmp_path: Path) -> None:
        opened = tmp_path / "opened"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (opened,))

        (backbone_folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
        Backbone.load(backbone_folder)
        (backbone_folder / "model.safetensors").unlink()
        assert "model.safetensors" in self.refused(backbone_folder)
        assert not opened.exists()

    def test_unknown_name_without_network(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The Hub's client alone would retry for 45 seconds."""
        requests = []

        def no_network(*address: Any, **_: Any) -> Any:
            requests.append(address[0])
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        message = self.refused("nobody/does-not-exist")
        assert "the Hub did not answer" in message
        assert "its cache on this machine has no copy" in message
        assert len(requests) <= 2  # no retries
        assert capfd.readouterr() == ("", "")

    def test_unknown_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from unittest.mock import MagicMock

        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        def unknown(*_: Any, **__: Any) -> Any:
            raise RepositoryNotFoundError("404 Client Error\n\nRepository Not Found", response=MagicMock())

        monkeypatch.setattr(HfApi, "model_info", unknown)
        assert "no such model on the Hub" in self.refused("nobody/does-not-exist")
        assert "at revision 'v2'" in self.refused("nobody/does-not-exist", revision="v2")

    def test_a_hub_id_is_remembered_with_its_commit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import HfApi

        monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: type("Info", (), {"sha": "c0ffee"})())
        requests: list[dict[str, Any]] = []

        def from_hub(name: str, **options: Any) -> Any:
            requests.append(options)
            kept = {key: options[key] for key in ("dtype", "output_loading_info", "use_safetensors")}
            return from_pretrained(BACKBONE, **kept)

        from_pretrained = AutoModelForCausalLM.from_pretrained
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_hub)
        backbone = Backbone.load("owner/name", revision="main")
        assert backbone.reference is not None
        assert (backbone.reference.name, backbone.reference.revision) == ("owner/name", "c0ffee")
        assert requests[0]["revision"] == "c0ffee"
        assert requests[0]["use_safetensors"] is True
        assert requests[0]["trust_remote_code"] is False

    def test_an_adapter_is_no_language_model(self, backbone_folder: Path, tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model

        adapter = get_peft_model(
            LlamaForCausalLM.from_pretrained(backbone_folder), LoraConfig(target_modules=["q_proj"])
        )
        adapter.save_pretrained(str(tmp_path / "adapter"))
        assert "is an adapter, not a language model" in self.refused(tmp_path / "adapter")
