"""One copy read two ways, what the probe refuses, and language models that don't load."""

import copy
import json
import pickle
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, LlamaForCausalLM, PreTrainedModel

from llm2comp.adapter import AdapterSettings
from llm2comp.backbone import Backbone
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.probe import PROBE_TEXTS, probe
from llm2comp.training.compression import compression_loss
from tests.conftest import BACKBONE
from tests.families import PACKED, PADDED, REFUSED, VOCABULARY, build, padded_states, some_texts

LENGTHS = (5, 17, 9, 1)


def stirred(backbone: Backbone, dropout: float = 0.0) -> Backbone:
    """With an adapter that does something."""
    backbone.language_model.requires_grad_(False)
    backbone.add_adapter(AdapterSettings(rank=4, dropout=dropout))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return backbone


class TestReader:
    @torch.no_grad()
    def test_reads_as_the_plain_model_whatever_the_adapter_does(self) -> None:
        plain = build("llama")
        texts = some_texts(*LENGTHS)
        backbone = Backbone(copy.deepcopy(plain))
        embedded = backbone.embed(torch.cat(texts))
        without = backbone.encode(embedded, LENGTHS)
        stirred(backbone)
        encoded = backbone.encode(embedded, LENGTHS)
        assert (encoded - without).abs().max() > 0.1
        torch.testing.assert_close(backbone.read(embedded, LENGTHS), padded_states(plain, texts, causal=True), atol=1e-5, rtol=1e-5)
        assert torch.equal(backbone.encode(embedded, LENGTHS), encoded)

    @torch.no_grad()
    def test_an_error_in_the_reader_leaves_the_adapter_on(self) -> None:
        backbone = stirred(Backbone(build("llama")))
        embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
        before = backbone.encode(embedded, LENGTHS)
        with pytest.raises(RuntimeError):
            backbone.read(embedded, [3])
        assert torch.equal(backbone.encode(embedded, LENGTHS), before)

    @pytest.mark.parametrize("attention", ["packed", "padded"])
    def test_two_threads(self, attention: str) -> None:
        backbone = stirred(Backbone(build("llama"), attention))  # type: ignore[arg-type]
        with torch.no_grad():
            embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
            expected = {"encode": backbone.encode(embedded, LENGTHS), "read": backbone.read(embedded, LENGTHS)}
        wrong: list[str] = []

        def work(way: str) -> None:
            for _ in range(25):
                with torch.no_grad():
                    if not torch.equal(getattr(backbone, way)(embedded, LENGTHS), expected[way]):
                        wrong.append(way)

        threads = [threading.Thread(target=work, args=(way,)) for way in ("encode", "read", "encode", "read")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @pytest.mark.parametrize("family", [*PACKED, *PADDED])
    @torch.no_grad()
    def test_is_exact_in_training(self, family: str) -> None:
        backbone = Backbone(build(family))
        embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
        expected = backbone.read(embedded, LENGTHS), backbone.encode(embedded, LENGTHS)
        backbone.train()
        assert torch.equal(backbone.read(embedded, LENGTHS), expected[0])
        assert torch.equal(backbone.encode(embedded, LENGTHS), expected[1])

    @torch.no_grad()
    def test_merging_the_adapter_keeps_the_encoder(self) -> None:
        backbone = stirred(Backbone(build("llama")))
        embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
        before, read = backbone.encode(embedded, LENGTHS), backbone.read(embedded, LENGTHS)
        backbone.merge_adapter()
        assert not backbone.has_adapter
        torch.testing.assert_close(backbone.encode(embedded, LENGTHS), before, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(backbone.read(embedded, LENGTHS), read, atol=1e-2)
        backbone.add_adapter(AdapterSettings(rank=2))
        torch.testing.assert_close(backbone.encode(embedded, LENGTHS), before, atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_a_frozen_copy_stays_as_it_was(self) -> None:
        backbone = Backbone(build("llama"))
        embedded = backbone.embed_frozen(torch.cat(some_texts(*LENGTHS)))
        read = backbone.read(embedded, LENGTHS)
        backbone.keep_frozen_copy()
        for parameter in backbone.parameters():
            parameter.add_(0.1)
        assert torch.equal(backbone.read(backbone.embed_frozen(torch.cat(some_texts(*LENGTHS))), LENGTHS), read)
        assert not torch.allclose(backbone.encode(embedded, LENGTHS), read)
        backbone.check_head()

    def test_copies_and_pickles(self) -> None:
        backbone = stirred(Backbone(build("llama")))
        with torch.no_grad():
            embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
            expected = backbone.encode(embedded, LENGTHS)
            for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
                assert torch.equal(twin.encode(embedded, LENGTHS), expected)


class TestCheckpointing:
    CONTEXTS = ((1, 11, 7, 13, 9, 17), (1, 8, 6, 12))
    CONTINUATIONS = ((5, 10, 20), (30, 31, 32, 33))

    def gradients(self, model: LLM2Comp) -> dict[str, Tensor]:
        model.train()
        torch.manual_seed(11)
        compression_loss(model.encoder, self.CONTEXTS, self.CONTINUATIONS, "distillation").backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    @pytest.mark.parametrize("whole", [False, True], ids=["adapter", "all weights"])
    def test_gradients_are_the_same(self, make_model: Callable[..., LLM2Comp], whole: bool) -> None:
        """Through encoder, student and, of the adapter, its dropout; recomputed in the state they were recorded in."""
        options: dict[str, Any] = {"adapter": None if whole else AdapterSettings(rank=4, dropout=0.3)}
        found = []
        forwards = []
        for checkpointed in (False, True):
            model = make_model(**options)
            if whole:
                model.encoder.backbone.keep_frozen_copy()
            if checkpointed:
                model.encoder.backbone.enable_checkpointing()
            layer = next(module for name, module in model.named_modules() if name.endswith("layers.0.self_attn"))
            counted = [0]
            layer.register_forward_pre_hook(lambda *_, counted=counted: counted.__setitem__(0, counted[0] + 1))
            found.append(self.gradients(model))
            forwards.append(counted[0])
            model.encode("checkpoints are no matter here")
        assert forwards[1] > forwards[0]  # something was recomputed
        plain, recomputed = found
        assert plain.keys() == recomputed.keys()
        assert any("memory" in name for name in plain)
        for name in plain:
            torch.testing.assert_close(recomputed[name], plain[name], atol=1e-7, rtol=1e-5, msg=name)

    def test_padded_models_say_that_they_cannot(self) -> None:
        backbone = Backbone(build("bloom"))
        with pytest.raises(BackboneError, match="gradient checkpointing needs packed attention, which BloomForCausalLM does not support; turn it off"):
            backbone.enable_checkpointing()
        with pytest.raises(BackboneError, match=r"attention dropout 0\.2 needs packed attention"):
            backbone.set_attention_dropout(0.2)
        backbone.set_attention_dropout(0.0)


class TestHead:
    @pytest.mark.parametrize("family", ["llama", "granite", "cohere", "cohere2", "gemma2", "phi", "gpt2", "bloom", "gptj", "opt", "mixtral"])
    @torch.no_grad()
    def test_logits_are_the_models_own(self, family: str) -> None:
        plain = build(family)
        backbone = Backbone(copy.deepcopy(plain))
        backbone.check_head()
        (text,) = some_texts(9)
        states = backbone.read(backbone.embed(text), [9])
        torch.testing.assert_close(backbone.head(states), plain(input_ids=text[None]).logits[0], atol=1e-4, rtol=1e-4)

    def test_a_head_of_another_kind_is_refused(self) -> None:
        settings = {name: value for name, value in PACKED["llama"].items() if name != "num_key_value_heads"}
        backbone = Backbone(BertLMHeadModel(BertConfig(**settings, is_decoder=True)))
        with pytest.raises(BackboneError, match="BertLMHeadModel computes its logits in a way this version does not know"):
            backbone.check_head()


class TestAdapter:
    def targets(self, family: str, **settings: Any) -> set[str]:
        backbone = Backbone(build(family))
        backbone.add_adapter(AdapterSettings(rank=2, **settings))
        return {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in backbone.named_parameters() if ".lora_A." in name}

    def test_layers_are_the_papers_where_a_model_has_them(self) -> None:
        assert self.targets("llama") == {"q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert self.targets("phi") == {"q_proj", "v_proj", "dense", "fc1", "fc2"}
        assert self.targets("opt") == {"q_proj", "v_proj", "out_proj", "fc1", "fc2"}
        assert self.targets("gpt2") == {"c_attn", "c_proj", "c_fc"}
        assert self.targets("phi3") == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
        assert self.targets("llama", targets=("k_proj",)) == {"k_proj"}

    def test_names_that_are_not_there(self) -> None:
        with pytest.raises(BackboneError, match=r"no adapter on \['query'\].*linear layers are down_proj, gate_proj"):
            Backbone(build("llama")).add_adapter(AdapterSettings(targets=("query",)))


def cumulated(embeddings: Tensor, lengths: Sequence[int], causal: bool) -> Tensor:
    """A language model in one line: each state is the mean of what its token sees."""
    texts = [text.cumsum(0) / torch.arange(1, len(text) + 1)[:, None] if causal else text.mean(0).expand_as(text) for text in embeddings.split(list(lengths))]
    return torch.cat(texts) + embeddings


class TestProbe:
    embedding = torch.nn.Embedding(20, 8)

    def run(self, forward: Callable[[Tensor, Sequence[int], bool], Tensor]) -> None:
        with torch.no_grad():
            own = [cumulated(self.embedding(torch.tensor(text)), [len(text)], True) for text in PROBE_TEXTS]
        probe(forward, self.embedding, own, name="Toy", device=torch.device("cpu"))

    def test_accepts_what_reads_both_ways(self) -> None:
        self.run(cumulated)

    def test_refuses_what_stays_causal(self) -> None:
        with pytest.raises(BackboneError, match="Toy stays causal: changing a text's last token moves only 1 of its 6 states"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, True))

    def test_refuses_what_stays_causal_without_padding_only(self) -> None:
        with pytest.raises(BackboneError, match="Toy stays causal"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, causal or len(lengths) == 1))

    def test_refuses_what_leaks(self) -> None:
        with pytest.raises(BackboneError, match="leak into one another"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths if causal else [sum(lengths)], causal))

    def test_refuses_what_looks_ahead(self) -> None:
        with pytest.raises(BackboneError, match="Toy looks ahead when it should be causal"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, False))

    def test_refuses_what_does_not_react(self) -> None:
        with pytest.raises(BackboneError, match="does not react to its input"):
            self.run(lambda embeddings, lengths, causal: torch.ones_like(embeddings) if causal else cumulated(embeddings, lengths, causal))

    def test_refuses_what_reads_differently_than_by_itself(self) -> None:
        """As a model does whose attention has a bias that is dropped on the way."""
        with pytest.raises(BackboneError, match="Toy reads differently than by itself"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, causal) * (1 if not causal else 1.5) + 0.1 * embeddings)

    def test_refuses_states_of_another_shape(self) -> None:
        with pytest.raises(BackboneError, match=r"shape \(6, 8\) into states of shape \(6, 4\)"):
            self.run(lambda embeddings, lengths, causal: cumulated(embeddings, lengths, causal)[:, :4])

    def test_leaves_no_trace(self) -> None:
        plain = build("bloom")
        before = plain.config.to_dict()
        backbone = Backbone(plain)
        with torch.no_grad():
            backbone.encode(backbone.embed(torch.arange(4)), [4])
        changed = {name for name, value in plain.config.to_dict().items() if value != before.get(name)}
        assert changed == {"hidden_dropout"}

    def test_ways_that_are_none(self) -> None:
        with pytest.raises(SettingsError, match="attention is 'flash'; give auto, packed or padded"):
            Backbone(build("llama"), "flash")  # type: ignore[arg-type]
        with pytest.raises(BackboneError, match="StableLmForCausalLM cannot be made bidirectional"):
            Backbone(build("stablelm"), "packed")

    @pytest.mark.parametrize("family", REFUSED)
    def test_refuses_families_that_stay_causal_by_name(self, family: str) -> None:
        plain = build(family)
        with pytest.raises(BackboneError, match=f"{type(plain).__name__} cannot be made bidirectional") as refused:
            Backbone(plain)
        assert "\n" not in str(refused.value)

    def test_refuses_half_precision_alike(self) -> None:
        with pytest.raises(BackboneError, match="GPTNeoForCausalLM cannot be made bidirectional"):
            Backbone(build("gpt_neo").bfloat16())
        assert Backbone(build("mixtral").bfloat16()).attention == "packed"
        assert Backbone(build("stablelm").bfloat16()).attention == "padded"


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

    def test_no_such_folder(self, tmp_path: Path) -> None:
        assert "no such folder" in self.refused(tmp_path / "nothing")

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

    def test_unknown_name_without_network(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        """The hub's client alone would try again for three quarters of a minute."""
        asked = []

        def no_network(*address: Any, **_: Any) -> Any:
            asked.append(address[0])
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        message = self.refused("nobody/does-not-exist")
        assert "the Hub did not answer" in message
        assert "its cache on this machine has no copy" in message
        assert len(asked) <= 2  # no retries
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
        asked: list[dict[str, Any]] = []

        def from_hub(name: str, **options: Any) -> Any:
            asked.append(options)
            kept = {key: options[key] for key in ("dtype", "output_loading_info", "use_safetensors")}
            return from_pretrained(BACKBONE, **kept)

        from_pretrained = AutoModelForCausalLM.from_pretrained
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_hub)
        backbone = Backbone.load("owner/name", revision="main")
        assert backbone.reference is not None
        assert (backbone.reference.name, backbone.reference.revision) == ("owner/name", "c0ffee")
        assert asked[0]["revision"] == "c0ffee"
        assert asked[0]["use_safetensors"] is True
        assert asked[0]["trust_remote_code"] is False

    def test_an_adapter_is_no_language_model(self, backbone_folder: Path, tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model

        adapter = get_peft_model(LlamaForCausalLM.from_pretrained(backbone_folder), LoraConfig(target_modules=["q_proj"]))
        adapter.save_pretrained(str(tmp_path / "adapter"))
        assert "is an adapter, not a language model" in self.refused(tmp_path / "adapter")


def test_vocabulary_of_the_families_suffices_for_the_probe() -> None:
    assert max(token for text in PROBE_TEXTS for token in text) < VOCABULARY
    assert isinstance(build("llama"), PreTrainedModel)
