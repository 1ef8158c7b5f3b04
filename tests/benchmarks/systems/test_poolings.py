"""Each pooling of a language model against its formula, sentence-transformers' own pooling, and the papers' prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llm2comp.errors import BackboneError, LLM2CompError, SettingsError
from llm2comp_benchmarks.systems.pooled_backbone import PooledBackbone, PromptedBackbone, as_sentence
from llm2comp_benchmarks.systems.poolings import POOLINGS
from tests.paths import BACKBONE

TEXTS = ["A bridge of stone.", "river", "The old clock tower and the market by the north road in winter. " * 3]
BOS = 1


@pytest.fixture(scope="module")
def make_pooled() -> Callable[[str], PooledBackbone]:
    made: dict[str, PooledBackbone] = {}

    def make(pooling: str) -> PooledBackbone:
        if pooling not in made:
            made[pooling] = PooledBackbone(pooling, str(BACKBONE), device="cpu", dtype="float32")
        return made[pooling]

    return make


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BACKBONE)


@pytest.fixture(scope="module")
def states_of(tokenizer: Any) -> Callable[[str], tuple[list[int], Tensor]]:
    """Token ids of an input without BOS, and the states (1 + tokens, hidden) that plain transformers' head gets."""
    plain = AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32, attn_implementation="eager").eval()
    seen: list[Tensor] = []
    plain.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))

    def states(text: str) -> tuple[list[int], Tensor]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            plain(input_ids=torch.tensor([[BOS, *ids]]))
        return ids, seen.pop()

    return states


def mean(states: Tensor) -> Tensor:
    return states.sum(0) / len(states)


def weighted(states: Tensor) -> Tensor:
    places = torch.arange(1, len(states) + 1)
    return (places[:, None] * states).sum(0) / places.sum()


FORMULAS = {"mean": mean, "weighted-mean": weighted, "last-token": lambda states: states[-1]}


@pytest.mark.parametrize("pooling", FORMULAS)
def test_the_texts_own_tokens_are_pooled(pooling: str, make_pooled: Any, states_of: Any) -> None:
    vectors = make_pooled(pooling).encode_document(TEXTS)
    for row, text in enumerate(TEXTS):
        expected = FORMULAS[pooling](states_of(text)[1][1:])
        assert torch.allclose(torch.as_tensor(vectors[row]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "theirs"), [("mean", "mean"), ("weighted-mean", "weightedmean"), ("last-token", "lasttoken")]
)
def test_sentence_transformers_pools_the_same_states_alike(
    pooling: str, theirs: str, make_pooled: Any, states_of: Any
) -> None:
    states = [states_of(text)[1][1:] for text in TEXTS]
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True, padding_value=7.0)
    mask = torch.tensor([[place < len(rows) for place in range(padded.shape[1])] for rows in states]).long()
    expected = TheirPooling(64, theirs)({"token_embeddings": padded, "attention_mask": mask})["sentence_embedding"]
    assert torch.allclose(torch.as_tensor(make_pooled(pooling).encode_document(TEXTS)), expected, atol=1e-5)


def test_echo_pools_the_second_occurrence(make_pooled: Any, states_of: Any, tokenizer: Any) -> None:
    vectors = make_pooled("echo").encode_document(TEXTS)
    for row, text in enumerate(TEXTS):
        ids, states = states_of(f"Rewrite the sentence: {text}, rewritten sentence: {text}")
        first = max(place for place in range(len(ids)) if tokenizer.decode(ids[place:]).removeprefix(" ") == text)
        assert torch.allclose(torch.as_tensor(vectors[row]), mean(states[1:][first:]), atol=1e-5)


def test_prompteol_takes_the_last_token_of_its_prompt(make_pooled: Any, states_of: Any) -> None:
    vectors = make_pooled("prompteol").encode_document(["A river", "Is it?"])
    for row, quoted in enumerate(["A river.", "Is it."]):
        assert torch.allclose(
            torch.as_tensor(vectors[row]),
            states_of(f'This sentence : "{quoted}" means in one word:"')[1][-1],
            atol=1e-5,
        )


def test_metaeol_averages_eight_prompts(make_pooled: Any, states_of: Any) -> None:
    prompts = POOLINGS["metaeol"].prompts
    assert len(set(prompts)) == 8
    assert all(
        prompt.count('this sentence : "{text}"') == 1 and prompt.endswith(' in one word:"') for prompt in prompts
    )
    expected = mean(torch.stack([states_of(prompt.replace("{text}", "A river."))[1][-1] for prompt in prompts]))
    assert torch.allclose(torch.as_tensor(make_pooled("metaeol").encode_document(["A river"])[0]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("It is", "It is."),
        ("It is!", "It is!."),
        ("It is.", "It is."),
        ("Is it?", "Is it."),
        ('He said "no"', "He said 'no'"),
        ("", ""),
    ],
)
def test_texts_are_quoted_as_in_the_published_code(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_has_the_same_vector_in_any_company(pooling: str, make_pooled: Any) -> None:
    model = make_pooled(pooling)
    alone = model.encode_query(["river"])
    together = model.encode_query([*TEXTS, "", "river"], batch_size=8)
    assert torch.allclose(torch.as_tensor(alone[0]), torch.as_tensor(together[-1]), atol=1e-5)
    assert torch.allclose(torch.as_tensor(alone[0]), torch.as_tensor(together[1]), atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_long_text_is_cut_and_its_prompt_is_not(pooling: str, tokenizer: Any) -> None:
    text = TEXTS[2]
    kept = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:12])
    assert text.startswith(kept)
    assert len(kept) < len(text)
    short = PooledBackbone(pooling, str(BACKBONE), max_length=12, device="cpu", dtype="float32")
    assert torch.equal(torch.as_tensor(short.encode_query([text])), torch.as_tensor(short.encode_query([kept])))


def tiny(positions: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("pooling", ["mean", "echo", "prompteol"])
def test_no_input_is_longer_than_the_language_model_reads(pooling: str, tokenizer: Any) -> None:
    module = PromptedBackbone(tiny(128), tokenizer, POOLINGS[pooling])
    width = module.preprocess(["tower " * 400])["input_ids"].shape[1]
    assert 128 - 16 <= width <= 128


def test_a_language_model_too_short_for_the_prompts(tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match="reads 64 tokens at most, fewer than the prompts"):
        PromptedBackbone(tiny(64), tokenizer, POOLINGS["metaeol"])


def test_a_text_without_tokens(make_pooled: Any) -> None:
    for pooling in ("mean", "weighted-mean", "last-token", "echo"):
        assert not make_pooled(pooling).encode_document([""]).any()
    for pooling in ("prompteol", "metaeol"):
        assert make_pooled(pooling).encode_document([""]).any()


def test_special_tokens_and_broken_characters_in_a_text_are_text(make_pooled: Any) -> None:
    model = make_pooled("mean")
    assert 2 not in model[0].preprocess(["a </s> b <s>"])["input_ids"][0, 1:].tolist()
    assert torch.equal(
        torch.as_tensor(model.encode_document(["a \ud800"])), torch.as_tensor(model.encode_document(["a \ufffd"]))
    )


def test_a_prompt_of_a_task_is_put_before_the_text(make_pooled: Any) -> None:
    model = make_pooled("echo")
    assert torch.equal(
        torch.as_tensor(model.encode_query(["river"], prompt="find: ")),
        torch.as_tensor(model.encode_query(["find: river"])),
    )


def test_vectors_have_the_dimension_told(make_pooled: Any) -> None:
    model = make_pooled("mean")
    assert model.encode_document(TEXTS).shape == (3, model.get_embedding_dimension()) == (3, 64)


def test_what_is_no_language_model_or_cannot_be_saved(tmp_path: Path, make_pooled: Any) -> None:
    with pytest.raises(BackboneError, match="cannot load"):
        PooledBackbone("mean", str(tmp_path), device="cpu")
    with pytest.raises(LLM2CompError, match="nothing to save"):
        make_pooled("mean").save(str(tmp_path / "saved"))
