"""Encoders made of a language model's first layers: the states are transformers', and the reader stays whole."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.attention import Packing
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.last_layer import last_attention
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.compression import compression_loss
from tests.families import PACKED, PADDED, build, padded_states, some_texts, stirred

LENGTHS = (5, 17, 9, 1)
TOTAL = 4
COUNT = 2
_NAMES = {"gpt2": "n_layer", "gptj": "n_layer", "bloom": "n_layer"}
_PER_LAYER = ("layer_types",)


def deep(family: str) -> PreTrainedModel:
    """Model of the family with four layers, of the kinds that its two layers have in turn."""
    settings = {**PACKED, **PADDED}[family]
    changes: dict[str, Any] = {_NAMES.get(family, "num_hidden_layers"): TOTAL}
    changes |= {name: settings[name] * 2 for name in _PER_LAYER if name in settings}
    return build(family, **changes)


def cut_by_hand(model: PreTrainedModel, count: int = COUNT) -> PreTrainedModel:
    """A copy whose later layers are removed from its list, as a plain user of transformers would."""
    plain = copy.deepcopy(model)
    layers = next(module for module in plain.modules() if isinstance(module, nn.ModuleList) and len(module) == TOTAL)
    for _ in range(TOTAL - count):
        del layers[-1]
    plain.config.num_hidden_layers = count
    return plain


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
@torch.no_grad()
def test_states_are_those_of_the_first_layers_and_reads_of_all(family: str, tmp_path: Path) -> None:
    plain = deep(family)
    texts = some_texts(*LENGTHS)
    expected = padded_states(plain, texts, causal=True)
    backbone = Backbone(copy.deepcopy(plain), layers=COUNT)
    embedded = backbone.embed(torch.cat(texts))
    encoded = backbone.encode(embedded, LENGTHS)
    torch.testing.assert_close(encoded, padded_states(cut_by_hand(plain), texts, causal=False), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone.read(embedded, LENGTHS), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), encoded, atol=0, rtol=0)
    backbone.check_head()
    backbone.language_model.save_pretrained(tmp_path, state_dict=backbone.weights())
    saved = Backbone(AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval())
    torch.testing.assert_close(saved.encode(embedded, LENGTHS), encoded, atol=1e-6, rtol=1e-6)
    assert saved.language_model.config.num_hidden_layers == COUNT


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "falcon"])
@torch.no_grad()
def test_an_adapter_is_on_the_first_layers_and_off_when_read(family: str) -> None:
    plain = deep(family)
    texts = some_texts(*LENGTHS)
    expected = padded_states(copy.deepcopy(plain), texts, causal=True)
    backbone = Backbone(plain, layers=COUNT)
    embedded = backbone.embed(torch.cat(texts))
    without = backbone.encode(embedded, LENGTHS)
    stirred(backbone)
    assert (backbone.encode(embedded, LENGTHS) - without).abs().max() > 0.1
    torch.testing.assert_close(backbone.read(embedded, LENGTHS), expected, atol=1e-5, rtol=1e-5)
    assert not any(f".{number}." in name for number in range(COUNT, TOTAL) for name in backbone.adapter_weights())


def test_one_copy_is_resident_with_an_adapter_and_two_without() -> None:
    whole = deep("llama")
    backbone = Backbone(whole, layers=COUNT)
    reader, encoder = backbone._reader(torch.device("cpu")), backbone.language_model
    assert reader is whole
    assert not backbone.has_other_reader
    shared = {id(parameter) for parameter in whole.parameters()}
    assert all(id(parameter) in shared for parameter in encoder.parameters())
    for name in ("config", "generation_config"):  # changed in one, such as by a trimmed vocabulary
        assert getattr(encoder, name) is not getattr(whole, name)
    backbone.keep_frozen_copy()
    assert backbone.has_other_reader
    frozen = backbone._reader(torch.device("cpu"))
    assert not {id(parameter) for parameter in frozen.parameters()} & shared
    assert len(frozen.model.layers) == TOTAL
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_training_all_weights_leaves_the_whole_reader_as_it_was() -> None:
    backbone = Backbone(deep("llama"), layers=COUNT)
    texts = torch.cat(some_texts(*LENGTHS))
    with torch.no_grad():
        read = backbone.read(backbone.embed_frozen(texts), LENGTHS)
        backbone.keep_frozen_copy()
        for parameter in backbone.parameters():
            parameter.add_(0.1)
        assert torch.equal(backbone.read(backbone.embed_frozen(texts), LENGTHS), read)
    backbone.encode(backbone.embed(texts), LENGTHS).sum().backward()
    assert backbone.language_model.model.layers[-1].mlp.up_proj.weight.grad is not None


def test_copies_and_moves_keep_one_copy() -> None:
    backbone = stirred(Backbone(deep("llama"), layers=COUNT))
    embedded = torch.randn(6, backbone.hidden_size)
    with torch.no_grad():
        states = backbone.encode(embedded, (4, 2)), backbone.read(embedded, (4, 2))
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert not twin.has_other_reader
        with torch.no_grad():
            assert torch.equal(twin.encode(embedded, (4, 2)), states[0])
            assert torch.equal(twin.read(embedded, (4, 2)), states[1])
    backbone.to("meta")
    reader = backbone._reader(torch.device("meta"))
    assert {parameter.device.type for parameter in reader.parameters()} == {"meta"}
    shared = {id(parameter) for parameter in reader.parameters()}
    assert all(id(parameter) in shared for parameter in backbone.parameters())


@torch.no_grad()
def test_the_shortcut_of_the_last_layer_is_that_of_the_last_used() -> None:
    backbone = Backbone(deep("llama"), layers=COUNT)
    layers = backbone._reader(torch.device("cpu")).model.layers
    assert last_attention(backbone.language_model) is layers[COUNT - 1].self_attn
    rows: list[int] = []
    layers[COUNT - 1].mlp.up_proj.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    embedded = backbone.embed(torch.cat(some_texts(4, 6)))
    whole = backbone.encode(embedded, (4, 6))
    tails = backbone.encode(embedded, (4, 6), tail=2)
    kept = Packing.of((4, 6), causal=False, device=embedded.device, tail=2).tail_rows()
    torch.testing.assert_close(tails[kept], whole[kept], atol=1e-5, rtol=1e-5)
    assert rows == [10, 4]
    backbone.read(embedded, (4, 6))
    assert rows == [10, 4, 10]


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "all weights"])
def test_gradients_of_stage_1_are_the_same_with_checkpoints(whole: bool) -> None:
    def gradients(checkpointed: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        backbone = Backbone(deep("llama"), layers=COUNT)
        if whole:
            backbone.keep_frozen_copy()
        else:
            stirred(backbone)
        if checkpointed:
            backbone.enable_checkpointing()
        backbone.train()
        texts = torch.cat(some_texts(*LENGTHS))
        states = backbone.encode(backbone.embed(texts), LENGTHS, tail=1)
        backbone.read(states, LENGTHS).pow(2).sum().backward()
        return {name: weight.grad for name, weight in backbone.named_parameters() if weight.grad is not None}

    plain, recomputed = gradients(False), gradients(True)
    assert plain.keys() == recomputed.keys()
    assert len(plain) > 10
    for name in plain:
        torch.testing.assert_close(recomputed[name], plain[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("count", "expected"), [(0, "give 1 to 4"), (5, "LlamaForCausalLM has 4: give 1 to 4")])
def test_numbers_that_the_model_does_not_have(count: int, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        Backbone(deep("llama"), layers=count)


def test_all_layers_are_no_fewer_layers() -> None:
    backbone = Backbone(deep("llama"), layers=TOTAL)
    assert backbone.layers is None
    assert not backbone.has_other_reader


class TestModels:
    """The golden backbone has three layers."""

    @pytest.mark.parametrize("adapter", [None, AdapterSettings(rank=4)], ids=["all weights", "adapter"])
    def test_saved_loaded_and_exported(
        self, make_model: Callable[..., LLM2Comp], adapter: AdapterSettings | None, tmp_path: Path
    ) -> None:
        from safetensors import safe_open
        from sentence_transformers import SentenceTransformer

        model = make_model(layers=2, adapter=adapter)
        texts = ["first layers", "and the final norm of the language model"]
        vectors = model.encode(texts)
        assert abs(vectors - make_model(adapter=adapter).encode(texts)).max() > 1e-3
        model.save(tmp_path / "model")
        with safe_open(tmp_path / "model/backbone/model.safetensors", framework="pt") as file:
            names = list(file.keys())
        assert any("layers.1." in name for name in names)
        assert not any("layers.2." in name for name in names)
        loaded = llm2comp.load(tmp_path / "model", device="cpu", dtype="float32")
        assert abs(loaded.encode(texts) - vectors).max() < 1e-6
        assert loaded.fingerprint == model.fingerprint
        assert loaded.encoder.backbone.layers == 2
        loaded.save(tmp_path / "again")
        again = llm2comp.load(tmp_path / "again", device="cpu", dtype="float32")
        assert (again.fingerprint, again.encoder.backbone.layers) == (model.fingerprint, 2)
        model.export(tmp_path / "plain")
        plain = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
        assert abs(plain.encode(texts) - vectors).max() < 1e-5

    def test_a_saved_model_cannot_read_without_the_whole(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path
    ) -> None:
        from llm2comp.reading.frozen_reader import find_own_reader
        from tests.paths import BACKBONE

        model = make_model(layers=2)
        contexts, continuations = ((1, 11, 7, 13), (1, 8, 6, 12)), ((5, 10, 20), (30, 31, 32))
        before = compression_loss(model.encoder, contexts, continuations, "continuation")
        assert find_own_reader(model) == ""
        model.save(tmp_path / "model")
        loaded = llm2comp.load(tmp_path / "model", device="cpu", dtype="float32")
        assert "only the first 2 layers" in find_own_reader(loaded)
        for refused in (
            lambda: compression_loss(loaded.encoder, contexts, continuations, "continuation"),
            loaded.encoder.backbone.keep_frozen_copy,
        ):
            with pytest.raises(BackboneError, match="only the first 2 layers .* give the whole language model"):
                refused()
        loaded.encoder.backbone.read_with(Backbone.load(BACKBONE))
        assert find_own_reader(loaded) == ""
        after = compression_loss(loaded.encoder, contexts, continuations, "continuation")
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)

    def test_a_backbone_of_the_hub_is_loaded_whole(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from llm2comp.backbone import backbone as backbone_module
        from llm2comp.backbone.backbone import BackboneReference
        from llm2comp.backbone.loading import Source
        from llm2comp.reading.frozen_reader import find_own_reader
        from tests.paths import BACKBONE

        model = make_model(layers=2)
        whole = make_model()
        for each in (model, whole):
            each.encoder.backbone.reference = BackboneReference("owner/name", "c0ffee")
        model.save(tmp_path / "model")
        assert not (tmp_path / "model/backbone").exists()
        monkeypatch.setattr(
            backbone_module, "find_source", lambda name, revision, **_: Source(name, revision, str(BACKBONE))
        )
        loaded = llm2comp.load(tmp_path / "model", device="cpu", dtype="float32")
        assert loaded.fingerprint == model.fingerprint != whole.fingerprint
        assert abs(loaded.encode("text") - model.encode("text")).max() < 1e-6
        assert find_own_reader(loaded) == ""
        loaded.changed()
        assert loaded.fingerprint == model.fingerprint

    def test_a_wrong_number_in_a_folder(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        make_model(layers=2).save(tmp_path / "model")
        path = tmp_path / "model/llm2comp.json"
        path.write_text(path.read_text(encoding="utf-8").replace('"layers": 2', '"layers": "two"'), encoding="utf-8")
        with pytest.raises(ModelFolderError, match="\"layers\" is 'two'"):
            llm2comp.load(tmp_path / "model")

    @pytest.mark.parametrize("adapter", [None, AdapterSettings(rank=2)], ids=["all weights", "adapter"])
    def test_stage_1_is_trained_and_goes_on_as_stage_3(self, adapter: AdapterSettings | None, tmp_path: Path) -> None:
        from llm2comp.training.recipe import run_stage, starting_point
        from llm2comp.training.settings import ModelSettings
        from tests.paths import BACKBONE
        from tests.training.tiny import compression, supervised, text, write_corpus, write_pairs

        settings = ModelSettings(layers=1, memory_tokens=2, max_length=64, adapter=adapter)
        corpus = write_corpus(tmp_path / "texts.jsonl", [text(number) for number in range(20)])
        stages = {
            "compression": compression(corpus),
            "supervised": supervised(write_pairs(tmp_path / "pairs.jsonl", 12)),
        }
        previous: Path | None = None
        for name, stage in stages.items():
            start = starting_point(settings, BACKBONE, previous, stage)
            previous = run_stage(name, stage, tmp_path / name, start, settings)
        assert previous is not None
        model = llm2comp.load(previous, device="cpu", dtype="float32")
        assert model.stages == ["compression:distillation", "supervised"]
        assert len(model.encoder.backbone.language_model.model.layers) == 1
        assert model.encode("text").shape == (model.encoder.get_embedding_dimension(),)

    def test_more_layers_than_there_are(self, make_model: Callable[..., LLM2Comp]) -> None:
        with pytest.raises(SettingsError, match="layers is 7; LlamaForCausalLM has 3"):
            make_model(layers=7)
