"""The embedding classes of both frameworks: the vectors are the model's, and every setting has its effect."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import llm2comp
from llm2comp import LLM2Comp
from llm2comp.errors import ModelFolderError
from tests.conftest import QUERY_INSTRUCTION

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
pytest.importorskip("langchain_core", reason="needs the extra langchain")

from llama_index.embeddings.llm2comp import LLM2CompEmbedding

from langchain_llm2comp import LLM2CompEmbeddings

TEXTS = [
    "a line\nand another",
    "",
    " spaces ",
    "<s> </s> [MASK]",
    "Größe, 大きさ, \U0001f4cf",
    "half a pair: \ud83d",
    "word " * 700,
]
QUERY = "How large\nis it?"
CLASSES = pytest.mark.parametrize("make", [LLM2CompEmbedding, LLM2CompEmbeddings])
Make = Callable[..., Any]


def _query(made: Any, text: Any) -> list[float]:
    return made.get_query_embedding(text) if isinstance(made, LLM2CompEmbedding) else made.embed_query(text)


def _texts(made: Any, texts: Any) -> list[list[float]]:
    return made.get_text_embedding_batch(texts) if isinstance(made, LLM2CompEmbedding) else made.embed_documents(texts)


@CLASSES
def test_without_arguments_vectors_are_those_of_the_bundled_model(make: Make) -> None:
    made, reference = make(), llm2comp.load()
    assert _query(made, QUERY) == reference.encode_query(QUERY).tolist()
    vectors = _texts(made, TEXTS)
    assert vectors == reference.encode_document(TEXTS).tolist()
    assert {type(number) for vector in vectors for number in vector} == {float}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert _texts(made, []) == []


@CLASSES
def test_the_bundled_model_by_name_and_a_folder_of_that_name(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make(model_name="llm2comp-tiny").fingerprint == llm2comp.load().fingerprint
    for folder in (Path("llm2comp-tiny"), "./llm2comp-tiny"):
        with pytest.raises(ModelFolderError, match=r"no model at '\./llm2comp-tiny': give a bundled model"):
            make(model_name=folder)


@CLASSES
def test_a_line_break_is_part_of_the_text(make: Make, bundled: LLM2Comp) -> None:
    made = make(model=bundled)
    assert _texts(made, ["one\ntwo"]) != _texts(made, ["one two"])
    assert _query(made, "one\ntwo") != _query(made, "one two")


@CLASSES
def test_a_saved_models_instruction_holds_for_queries_only(make: Make, saved_model: Path) -> None:
    reference = llm2comp.load(saved_model, device="cpu")
    made = make(model_name=saved_model, device="cpu")
    assert (
        _query(made, QUERY)
        == reference.encode_query(QUERY).tolist()
        == reference.encode(QUERY_INSTRUCTION + QUERY).tolist()
    )
    assert _texts(made, [QUERY]) == reference.encode_document([QUERY]).tolist() == reference.encode([QUERY]).tolist()


@CLASSES
@pytest.mark.parametrize("instruction", ["", "answer this:\n"])
def test_instructions_given_replace_the_saved_ones(make: Make, instruction: str, saved_model: Path) -> None:
    reference = llm2comp.load(saved_model, device="cpu")
    made = make(model_name=str(saved_model), device="cpu", query_instruction=instruction, text_instruction="passage: ")
    assert _query(made, QUERY) == reference.encode(instruction + QUERY).tolist()
    assert _texts(made, ["tree", "sea"]) == reference.encode(["passage: tree", "passage: sea"]).tolist()


@CLASSES
def test_max_length_is_that_of_a_model_set_to_it_and_the_model_given_keeps_its_own(
    make: Make, saved_model: Path
) -> None:
    model = llm2comp.load(saved_model, device="cpu")
    before = model.encode_query("word " * 50)
    made = make(model=model, max_length=20)
    reference = llm2comp.load(saved_model, device="cpu")
    reference.max_seq_length = 20
    assert _query(made, "word " * 50) == reference.encode_query("word " * 50).tolist() != before.tolist()
    assert model.max_seq_length == 64
    np.testing.assert_array_equal(model.encode_query("word " * 50), before)


@CLASSES
def test_without_normalization_vectors_are_the_mean_of_the_memory_tokens(make: Make, bundled: LLM2Comp) -> None:
    expected = bundled.encode_memory(["tree", "sea"]).mean(axis=1)
    np.testing.assert_allclose(
        _texts(make(model=bundled, normalize=False), ["tree", "sea"]), expected, rtol=1e-5, atol=1e-6
    )
    assert bundled.normalize


@CLASSES
def test_truncated_vectors_are_the_first_components_with_unit_length_again(make: Make, bundled: LLM2Comp) -> None:
    whole = bundled.encode_document(["tree", "sea"])[:, :64]
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(_texts(make(model=bundled, truncate_dim=64), ["tree", "sea"]), expected, atol=1e-6)


@CLASSES
def test_texts_in_several_batches_keep_their_order(make: Make, bundled: LLM2Comp) -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(40)]
    np.testing.assert_allclose(
        _texts(make(model=bundled, embed_batch_size=7), texts), bundled.encode_document(texts), atol=1e-5
    )


@CLASSES
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 8}, "batch_size\n"),
        ({"query_prompt": "find: "}, "query_prompt\n"),
        ({"embed_batch_size": 0}, "greater than 0"),
        ({"truncate_dim": 257}, "truncate_dim is 257, the model's vectors have 256 components"),
        ({"max_length": 9}, "a maximum length of 9 tokens: give between 10"),
        ({"device": "cuda:99"}, "device is 'cuda:99'"),
        ({"model": 3}, "model\n.*instance of LLM2Comp"),
        ({"model": "a name"}, "give the folder or Hub id 'a name' as model_name"),
        ({"query_instruction": 3}, "query_instruction\n"),
        ({"model_name": "a loaded model"}, "give that model again"),
    ],
)
def test_settings_that_cannot_be_are_named(make: Make, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        make(**settings)


@CLASSES
def test_a_model_is_either_given_or_loaded(make: Make, bundled: LLM2Comp) -> None:
    for other in ({"model_name": "a/b"}, {"device": "cpu"}):
        with pytest.raises(ValidationError, match="give either"):
            make(model=bundled, **other)
    assert make(model=None, model_name=None).model_name == "llm2comp-tiny"
    with pytest.raises(ModelFolderError, match="nowhere"):
        make(model_name="nowhere")


@CLASSES
def test_what_the_model_was_loaded_with_cannot_be_assigned_later(make: Make, bundled: LLM2Comp) -> None:
    made = make(model=bundled)
    for name, value in (
        ("model_name", "a/b"),
        ("device", "cuda"),
        ("max_length", 32),
        ("truncate_dim", 8),
        ("normalize", False),
        ("model", bundled),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, value)
    made.query_instruction = "find: "
    assert _query(made, QUERY) == bundled.encode("find: " + QUERY).tolist()
    for name, wrong in (("embed_batch_size", 0), ("query_instruction", 3)):
        with pytest.raises(ValidationError, match=name):
            setattr(made, name, wrong)


@CLASSES
@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["a list"], float("nan")])
def test_a_query_that_is_no_string_is_refused(make: Make, bad: Any, bundled: LLM2Comp) -> None:
    with pytest.raises(TypeError, match=f"the query is {type(bad).__name__}"):
        _query(make(model=bundled), bad)


@CLASSES
def test_an_empty_text_is_a_text(make: Make, bundled: LLM2Comp) -> None:
    made = make(model=bundled)
    assert _query(made, "") == bundled.encode_query("").tolist()
    assert _texts(made, [""]) == [bundled.encode_document("").tolist()]
    with pytest.raises(TypeError, match="expected a list of strings, got str ''"):
        _texts(made, "")


@CLASSES
@pytest.mark.parametrize("bad", [None, 3, b"bytes", "one string", {"a": 1}])
def test_texts_that_are_no_list_are_refused(make: Make, bad: Any, bundled: LLM2Comp) -> None:
    with pytest.raises(TypeError, match=f"expected a list of strings, got {type(bad).__name__}"):
        _texts(make(model=bundled), bad)


@CLASSES
def test_the_bad_one_of_ten_thousand_texts_is_named_before_anything_is_computed(
    make: Make, bundled: LLM2Comp, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[Any] = ["a text"] * 10_000
    texts[7_654] = None
    monkeypatch.setattr(LLM2Comp, "encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(TypeError, match="text 7654 of 10000 is NoneType None"):
        _texts(make(model=bundled), texts)


@CLASSES
def test_dumped_and_made_again_it_gives_the_same_vectors(make: Make, saved_model: Path) -> None:
    made = make(
        model_name=saved_model,
        device="cpu",
        query_instruction="q: ",
        max_length=32,
        truncate_dim=16,
        normalize=True,
        embed_batch_size=3,
    )
    settings = json.loads(json.dumps(made.model_dump()))
    settings.pop("class_name", None)
    again = make(**settings)
    assert _query(again, QUERY) == _query(made, QUERY)
    assert _texts(again, TEXTS) == _texts(made, TEXTS)
    assert again.fingerprint == made.fingerprint


@CLASSES
def test_made_again_with_another_model_it_is_refused(make: Make, saved_model: Path) -> None:
    settings = make(model_name=saved_model, device="cpu").model_dump()
    settings.pop("class_name", None)
    with pytest.raises(ValidationError, match="it is another one, or was trained since"):
        make(**settings | {"model_name": "llm2comp-tiny"})


@CLASSES
def test_dumped_with_a_loaded_model_it_needs_that_model_again(make: Make, bundled: LLM2Comp, model: LLM2Comp) -> None:
    settings = make(model=bundled, max_length=32).model_dump()
    settings.pop("class_name", None)
    assert _query(make(**settings, model=bundled), QUERY) == _query(make(model=bundled, max_length=32), QUERY)
    with pytest.raises(ValidationError, match="give that model again"):
        make(**settings)
    with pytest.raises(ValidationError, match="it is another one"):
        make(**settings, model=model)


@CLASSES
def test_fingerprints_differ_where_vectors_do(make: Make, bundled: LLM2Comp) -> None:
    different: list[dict[str, Any]] = [
        {"query_instruction": "q: "},
        {"text_instruction": "q: "},
        {"max_length": 32},
        {"truncate_dim": 8},
        {"normalize": False},
    ]
    prints = [make(model=bundled, **settings).fingerprint for settings in [{}, *different]]
    assert prints[0] == bundled.fingerprint
    assert len(set(prints)) == len(prints)
    assert make(model=bundled, embed_batch_size=3).fingerprint == prints[0]


@CLASSES
def test_pickled_it_names_the_model_and_holds_the_weights_only_of_one_given(
    make: Make, saved_model: Path, model: LLM2Comp
) -> None:
    named = make(model_name=saved_model, device="cpu", max_length=32)
    assert len(content := pickle.dumps(named)) < 2000
    assert _query(pickle.loads(content), QUERY) == _query(named, QUERY)
    encoder = make(model=model, text_instruction="t: ")
    assert _texts(pickle.loads(pickle.dumps(encoder)), ["tree"]) == _texts(encoder, ["tree"])


FORK = """
import multiprocessing, pickle
from langchain_llm2comp import LLM2CompEmbeddings

def embed(pickled):
    return pickle.loads(pickled).embed_documents(["tree"])

embeddings = LLM2CompEmbeddings(device="cpu")
embeddings.embed_documents(["starts the threads " * 50] * 8)
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert len(pool.apply_async(embed, [pickle.dumps(embeddings)]).get(120)[0]) == 256
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_threads_it_has_not(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", FORK], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr


@CLASSES
def test_many_threads_get_what_one_gets(make: Make, bundled: LLM2Comp) -> None:
    made = make(model=bundled)
    questions = [f"{'very ' * (number % 9)}question {number}" for number in range(48)]
    expected = [(_query(made, question), _texts(made, [question, "tree"])) for question in questions]
    with ThreadPoolExecutor(8) as threads:
        assert (
            list(threads.map(lambda question: (_query(made, question), _texts(made, [question, "tree"])), questions))
            == expected
        )


@CLASSES
async def test_asynchronous_methods_compute_in_a_thread(
    make: Make, bundled: LLM2Comp, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(model=bundled)
    expected = bundled.encode_query(QUERY).tolist(), bundled.encode_document(["tree", "sea"]).tolist()
    loop_runs, waited = threading.Event(), []
    encode = LLM2Comp.encode

    def wait_for_the_loop(self: LLM2Comp, *args: Any, **kwargs: Any) -> Any:
        waited.append(loop_runs.wait(20))  # never set if the loop stands still
        return encode(self, *args, **kwargs)

    async def run_the_loop() -> None:
        loop_runs.set()

    monkeypatch.setattr(LLM2Comp, "encode", wait_for_the_loop)
    of_query, of_texts = (
        ("aget_query_embedding", "aget_text_embedding_batch")
        if make is LLM2CompEmbedding
        else ("aembed_query", "aembed_documents")
    )
    query, texts, _ = await asyncio.gather(
        getattr(made, of_query)(QUERY), getattr(made, of_texts)(["tree", "sea"]), run_the_loop()
    )
    assert (query, texts) == expected
    assert waited == [True, True]
