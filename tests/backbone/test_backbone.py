"""One language model as encoder and reader: adapter states, copies, checkpointing, the head, and adapters."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.errors import BackboneError
from llm2comp.model import LLM2Comp
from llm2comp.training.compression import compression_loss
from tests.families import PACKED, PADDED, build, padded_states, some_texts, stirred

LENGTHS = (5, 17, 9, 1)


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
        torch.testing.assert_close(
            backbone.read(embedded, LENGTHS), padded_states(plain, texts, causal=True), atol=1e-5, rtol=1e-5
        )
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
        torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected[1], atol=1e-5, rtol=1e-5)

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
        """Through encoder, student and adapter dropout; each recomputed with the adapter on or off as before."""
        options: dict[str, Any] = {"adapter": None if whole else AdapterSettings(rank=4, dropout=0.3)}
        gradients = []
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
            gradients.append(self.gradients(model))
            forwards.append(counted[0])
            model.encode("checkpoints are no matter here")
        assert forwards[1] > forwards[0]  # something was recomputed
        plain, recomputed = gradients
        assert plain.keys() == recomputed.keys()
        assert any("memory" in name for name in plain)
        for name in plain:
            torch.testing.assert_close(recomputed[name], plain[name], atol=1e-7, rtol=1e-5, msg=name)

    def test_padded_models_say_that_they_cannot(self) -> None:
        backbone = Backbone(build("bloom"))
        with pytest.raises(
            BackboneError,
            match="gradient checkpointing needs packed attention, which BloomForCausalLM does not support; turn it off",
        ):
            backbone.enable_checkpointing()
        with pytest.raises(BackboneError, match=r"attention dropout 0\.2 needs packed attention"):
            backbone.set_attention_dropout(0.2)
        backbone.set_attention_dropout(0.0)


class TestHead:
    @pytest.mark.parametrize(
        "family", ["llama", "granite", "cohere", "cohere2", "gemma2", "phi", "gpt2", "bloom", "gptj", "opt", "mixtral"]
    )
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
        with pytest.raises(
            BackboneError, match="BertLMHeadModel computes its logits in a way this version does not know"
        ):
            backbone.check_head()


class TestAdapter:
    def targets(self, family: str, **settings: Any) -> set[str]:
        backbone = Backbone(build(family))
        backbone.add_adapter(AdapterSettings(rank=2, **settings))
        return {
            name.split(".lora_A")[0].rpartition(".")[2] for name, _ in backbone.named_parameters() if ".lora_A." in name
        }

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


def test_a_copy_with_checkpoints_has_contexts_of_its_own() -> None:
    """A copy that asked the first model would lock and switch the adapter of that one."""
    backbone = stirred(Backbone(build("llama")))
    backbone.enable_checkpointing()
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        functions: list[Any] = [
            module._gradient_checkpointing_func
            for module in twin.language_model.modules()
            if hasattr(module, "_gradient_checkpointing_func")
        ]
        assert functions
        assert all(function.keywords["context_fn"].__self__ is twin for function in functions)
