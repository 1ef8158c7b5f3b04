"""Trimmed vocabularies: texts of kept tokens have the vectors they had, all others are encoded in pieces."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.vocabulary import byte_tokens, choose_tokens, trim_tokenizer
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.model_folder import write_config
from llm2comp.training.settings import ModelSettings, VocabularySettings
from llm2comp.training.settings_file import to_settings
from llm2comp.training.vocabulary import trim_vocabulary
from tests.families import build
from tests.test_model_folder import config_of, load

CORPUS = [
    "The river rises in the mountains and flows through the valley to the sea.",
    "The mountains are high, and the valley is green in the summer and white in the winter.",
    "A memory token stands for the whole text; the text is read by the language model.",
    "In the winter the river freezes, and the sea is rough; in the summer the sea is calm.",
    "def read(text):\n    return model.encode(text)  # the whole text",
]
KEPT = [CORPUS[0], "The sea is calm in the summer.", ""]
OTHER = ["Größe und Maß", "日本語のテキスト", "🍵 tea", "<s> </s>", "rivers, seas & mountains", "\u0000\u200d\ufffd"]


def train(kind: str, size: int = 420) -> PreTrainedTokenizerBase:
    """A tokenizer of a kind: byte-level as GPT-2 has it, looked up whole first as Llama 3, byte fallback as Llama 2."""
    special = ["<unk>", "<s>", "</s>"]
    if kind == "fallback":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special, *names], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "whole"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if kind == "fallback":  # the trainer made bytes special, which they are not
        parts = json.loads(tokenizer.to_str())
        parts["added_tokens"] = parts["added_tokens"][:3]
        tokenizer = Tokenizer.from_str(json.dumps(parts))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Llama of 2 layers whose tokenizer is byte-level."""
    target = tmp_path / "language model"
    tokenizer = train("bytes")
    build("llama", vocab_size=len(tokenizer) + 12, pad_token_id=2).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in KEPT if text))
    return str(path)


def make(folder: Path, **options: Any) -> LLM2Comp:
    return LLM2Comp.from_backbone(folder, 2, max_length=48, device="cpu", **{"adapter": None, **options})


class TestTokenizer:
    @pytest.mark.parametrize("kind", ["bytes", "whole", "fallback"])
    def test_texts_of_kept_tokens_are_tokenized_as_before(self, kind: str) -> None:
        tokenizer = train(kind)
        wanted = {number for text in KEPT for number in ids_of(tokenizer, text)}
        kept = choose_tokens(tokenizer, sorted(wanted))
        assert wanted <= set(kept)
        assert len(kept) < len(tokenizer)
        trimmed = trim_tokenizer(tokenizer, kept)
        for text in KEPT:
            assert [kept[number] for number in ids_of(trimmed, text)] == ids_of(tokenizer, text)

    @pytest.mark.parametrize("kind", ["bytes", "whole", "fallback"])
    def test_random_texts_of_kept_tokens_too(self, kind: str) -> None:
        """Whatever is kept: texts whose tokens all are, are tokenized as before; no text is unknown."""
        tokenizer = train(kind)
        generator = np.random.default_rng(0)
        words = [word for text in CORPUS for word in text.split(" ")]
        unchanged = 0
        for _ in range(30):
            kept = choose_tokens(tokenizer, generator.permutation(len(tokenizer)).tolist(), 350)
            trimmed = trim_tokenizer(tokenizer, kept)
            for _ in range(30):
                text = " ".join(generator.choice(words, 2))
                before, after = ids_of(tokenizer, text), [kept[number] for number in ids_of(trimmed, text)]
                if set(before) <= set(kept):
                    unchanged += 1
                    assert after == before
                assert trimmed.decode(ids_of(trimmed, text)) == tokenizer.decode(before)
        assert unchanged > 20

    @pytest.mark.parametrize("kind", ["bytes", "whole", "fallback"])
    def test_other_texts_lose_nothing(self, kind: str) -> None:
        tokenizer = train(kind)
        trimmed = trim_tokenizer(tokenizer, choose_tokens(tokenizer, []))
        for text in [*OTHER, *CORPUS]:
            ids = ids_of(trimmed, text)
            assert trimmed.unk_token_id not in ids
            assert trimmed.decode(ids) == tokenizer.decode(ids_of(tokenizer, text)), text

    def test_a_token_keeps_the_tokens_on_the_way_to_it(self) -> None:
        tokenizer = train("bytes")
        vocabulary = tokenizer.get_vocab()
        longest = max(vocabulary, key=len)
        kept = choose_tokens(tokenizer, [vocabulary[longest]])
        trimmed = trim_tokenizer(tokenizer, kept)
        text = tokenizer.decode([vocabulary[longest]])
        assert trimmed.convert_ids_to_tokens(ids_of(trimmed, text)) == [longest]
        assert len(choose_tokens(tokenizer, [])) + 1 < len(kept)

    def test_special_tokens_keep_their_meaning(self, tmp_path: Path) -> None:
        tokenizer = train("bytes")
        trimmed = trim_tokenizer(tokenizer, choose_tokens(tokenizer, []))
        trimmed.save_pretrained(tmp_path)
        again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            assert getattr(again, name) == getattr(tokenizer, name)
        assert again.get_vocab() == trimmed.get_vocab()

    def test_the_limit_counts_everything(self) -> None:
        tokenizer = train("bytes")
        every = range(len(tokenizer))
        assert len(choose_tokens(tokenizer, [])) == 259
        assert 295 <= len(choose_tokens(tokenizer, reversed(every), 300)) <= 300
        assert choose_tokens(tokenizer, every) == list(every)
        with pytest.raises(SettingsError, match="a vocabulary of 258 tokens: 259 are bytes and special tokens"):
            choose_tokens(tokenizer, every, 258)

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0), "it is Unigram, and only BPE can be"),
            (models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), "it is WordPiece"),
            (models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"), "it is WordLevel"),
            (models.BPE({"a": 0, "b": 1}, []), "it has no tokens of single bytes"),
            (models.BPE({"a": 0}, [], byte_fallback=True), "it has no tokens of single bytes"),
            (models.BPE({"a": 0}, [], end_of_word_suffix="</w>"), "with dropout, prefixes or suffixes"),
        ],
        ids=str,
    )
    def test_other_kinds_are_refused(self, kind: models.Model, message: str) -> None:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(kind))
        with pytest.raises(BackboneError, match=message) as error:
            choose_tokens(tokenizer, [])
        assert "\n" not in str(error.value)


class TestModel:
    @pytest.mark.parametrize("options", [{}, {"adapter": AdapterSettings(rank=2)}, {"layers": 1}], ids=str)
    def test_the_same_vectors_before_and_after(
        self, folder: Path, corpus: str, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        model = make(folder, **options)
        before, size = model.encode(KEPT), model.encoder.backbone.vocabulary_size
        fingerprint = model.fingerprint
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        assert np.array_equal(model.encode(KEPT), before)
        assert model.encoder.backbone.vocabulary_size < size
        assert model.fingerprint != fingerprint
        assert np.isfinite(model.encode(OTHER)).all()
        model.save(tmp_path / "saved")
        loaded = load(tmp_path / "saved")
        assert np.array_equal(loaded.encode([*KEPT, *OTHER]), model.encode([*KEPT, *OTHER]))
        loaded.changed()
        assert loaded.fingerprint == model.fingerprint == config_of(tmp_path / "saved")["fingerprint"]

    def test_the_bundled_model(self, tmp_path: Path) -> None:
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS))
        model = llm2comp.load(device="cpu", dtype="float32")
        before = model.encode(CORPUS)
        trim_vocabulary(model, VocabularySettings(corpora=(str(corpus),)))
        assert model.encoder.backbone.vocabulary_size < 500
        assert np.allclose(model.encode(CORPUS), before, atol=1e-6)
        model.save(tmp_path / "small", weights_dtype="int8")
        assert (load(tmp_path / "small").encode(CORPUS) * before).sum(1).min() > 0.999

    def test_the_folder_keeps_the_old_ids(self, folder: Path, corpus: str, tmp_path: Path) -> None:
        model = make(folder)
        old = dict(model.encoder.tokenizer.get_vocab())
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        model.save(tmp_path / "saved")
        assert "vocabulary.safetensors" in config_of(tmp_path / "saved")["files"]
        loaded = load(tmp_path / "saved").encoder
        assert loaded.backbone.kept_tokens is not None
        for token, number in loaded.tokenizer.get_vocab().items():
            assert loaded.backbone.kept_tokens[number] == old[token]

    def test_a_whole_model_reads_its_memory(self, folder: Path, corpus: str, tmp_path: Path) -> None:
        """The same states and logits, at the kept tokens, as the whole model computes from the old ids."""
        model = make(folder)
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        model.save(tmp_path / "saved")
        encoder = load(tmp_path / "saved").encoder
        reader, whole = Backbone.load(folder), Backbone.load(folder)
        encoder.backbone.read_with(reader)
        kept = encoder.backbone.kept_tokens
        assert kept is not None
        tokens = torch.tensor(encoder.token_ids([KEPT[0]])[0])
        memory = encoder.memory.detach()
        trimmed = torch.cat([memory, encoder.backbone.embed_frozen(tokens)])
        expected = torch.cat([memory, whole.embed_frozen(kept[tokens])])
        states = encoder.backbone.read(trimmed, [len(trimmed)])
        assert torch.allclose(states, whole.read(expected, [len(expected)]), atol=1e-5)
        assert torch.allclose(encoder.backbone.head(states), whole.head(states)[:, kept], atol=1e-5)

    def test_trimming_twice_keeps_the_first_ids(self, folder: Path, corpus: str) -> None:
        model = make(folder)
        old = dict(model.encoder.tokenizer.get_vocab())
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,), tokens=265))
        encoder = model.encoder
        assert encoder.backbone.kept_tokens is not None
        assert all(
            encoder.backbone.kept_tokens[new] == old[token] for token, new in encoder.tokenizer.get_vocab().items()
        )

    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "qwen2", "opt", "phi"])
    def test_families(self, family: str, tmp_path: Path, corpus: str) -> None:
        tokenizer = train("bytes")
        build(family, vocab_size=len(tokenizer), pad_token_id=2).save_pretrained(tmp_path / "whole")
        tokenizer.save_pretrained(tmp_path / "whole")
        model = make(tmp_path / "whole")
        before = model.encode(KEPT)
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        assert np.allclose(model.encode(KEPT), before, atol=1e-6)
        model.save(tmp_path / "saved")
        assert np.allclose(load(tmp_path / "saved").encode(KEPT), before, atol=1e-6)

    def test_exports(self, folder: Path, corpus: str, tmp_path: Path) -> None:
        model = make(folder)
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        assert model.export(tmp_path / "plain").difference < 1e-4

    def test_a_damaged_map(self, folder: Path, corpus: str, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        model = make(folder)
        trim_vocabulary(model, VocabularySettings(corpora=(corpus,)))
        model.save(tmp_path / "saved")
        size = model.encoder.backbone.vocabulary_size
        for damaged in (torch.arange(size - 1), torch.zeros(size, dtype=torch.int64), torch.ones(size)):
            save_file({"kept_tokens": damaged}, tmp_path / "saved" / "vocabulary.safetensors")
            write_config(tmp_path / "saved", {})
            with pytest.raises(
                ModelFolderError, match=f"does not hold {size} token ids in rising order: copy the model"
            ):
                load(tmp_path / "saved")


class TestFile:
    def tokens(self, folder: Path, *more: str) -> list[str]:
        return [*byte_tokens(make(folder).encoder.tokenizer), *more]

    def test_names_the_tokens(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "tokens.txt").write_text("\n".join(self.tokens(folder, "Ġthe")) + "\n", encoding="utf-8")
        model = make(folder)
        trim_vocabulary(model, VocabularySettings(file=str(tmp_path / "tokens.txt")))
        vocabulary = model.encoder.tokenizer.get_vocab()
        assert "Ġthe" in vocabulary
        assert 259 < len(vocabulary) <= 263  # with the tokens on the way to it

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (["Ġthe"], r"tokens.txt lacks 256 of the tokens of single bytes, such as '!'"),
            (["!", "nowhere"], r"tokens.txt:2: the tokenizer has no token 'nowhere'"),
            (None, "no vocabulary file .*tokens.txt"),
        ],
        ids=str,
    )
    def test_a_file_that_will_not_do(
        self, folder: Path, tmp_path: Path, content: list[str] | None, message: str
    ) -> None:
        if content is not None:
            (tmp_path / "tokens.txt").write_text("\n".join(content), encoding="utf-8")
        with pytest.raises(SettingsError, match=message) as error:
            trim_vocabulary(make(folder), VocabularySettings(file=str(tmp_path / "tokens.txt")))
        assert "\n" not in str(error.value)


class TestSettings:
    def test_in_a_recipe(self) -> None:
        values = {"backbone": "a/b", "vocabulary": {"corpora": ["wiki.jsonl"], "tokens": 16000}}
        settings = to_settings(ModelSettings, values, where="model")
        assert settings.vocabulary == VocabularySettings(corpora=("wiki.jsonl",), tokens=16000)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({}, "give either corpora or file"),
            ({"corpora": ["a"], "file": "b"}, "give either corpora or file"),
            ({"file": "b", "tokens": 5}, "tokens limits the tokens of corpora"),
            ({"corpora": ["a"], "tokens": 0}, "tokens is 0; it must be at least 1"),
        ],
        ids=str,
    )
    def test_contradictions(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            to_settings(VocabularySettings, values, where="model: vocabulary")

    def test_the_first_model_of_a_recipe(self, folder: Path, corpus: str, make_model: Callable[..., LLM2Comp]) -> None:
        from llm2comp.training.recipe import starting_point
        from llm2comp.training.settings import CompressionSettings

        stage = CompressionSettings(steps=1, batch_size=1, learning_rate=1e-3, corpora=(corpus,), precision="float32")
        settings = ModelSettings(
            backbone=str(folder),
            memory_tokens=2,
            max_length=48,
            adapter=None,
            vocabulary=VocabularySettings(corpora=(corpus,), tokens=280),
        )
        model = starting_point(settings, folder, None, stage)()
        assert 259 < model.encoder.backbone.vocabulary_size <= 280
