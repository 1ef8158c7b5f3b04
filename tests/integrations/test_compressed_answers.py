"""Answers from memory tokens inside LlamaIndex and LangChain: the same as the reader's own."""

import asyncio
from typing import Any

import pytest

from llm2comp import LLM2Comp
from llm2comp.errors import SettingsError
from llm2comp.reading import CompressedReader
from tests.training.tiny import BACKBONE, text

TEXTS = [text(1, 20), text(2, 9)]
QUESTION = "What is it?"


@pytest.fixture(scope="module")
def reader() -> CompressedReader:
    model = LLM2Comp.from_backbone(BACKBONE, 2, dtype="float32", device="cpu")
    return CompressedReader(model, max_new_tokens=5, stop=())


def test_llama_index(reader: CompressedReader) -> None:
    core = pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.embeddings.llm2comp import LLM2CompSynthesizer

    synthesizer = LLM2CompSynthesizer(reader)
    nodes = [NodeWithScore(node=TextNode(text=each), score=1.0) for each in TEXTS]
    expected = reader.answer(QUESTION, TEXTS).text
    response = synthesizer.synthesize(QUESTION, nodes)
    assert isinstance(response, core.base.response.schema.Response)
    assert response.response == expected
    assert [node.node.get_content() for node in response.source_nodes] == TEXTS
    assert asyncio.run(synthesizer.asynthesize(QUESTION, nodes)).response == expected
    assert synthesizer.get_prompts() == {}
    with pytest.raises(ValueError, match="give the reader a template"):
        synthesizer._update_prompts({"text_qa_template": core.PromptTemplate("")})


def test_langchain(reader: CompressedReader) -> None:
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda, RunnablePassthrough

    from langchain_llm2comp import LLM2CompAnswerer

    expected = reader.answer(QUESTION, TEXTS).text
    found = RunnableLambda(lambda question: [Document(page_content=each) for each in TEXTS])
    chain: Any = {"context": found, "question": RunnablePassthrough()} | LLM2CompAnswerer(reader)
    assert chain.invoke(QUESTION) == expected
    assert asyncio.run(chain.ainvoke(QUESTION)) == expected
    assert LLM2CompAnswerer(reader).batch([{"question": QUESTION, "context": TEXTS}] * 2) == [expected] * 2
    for wrong, message in (
        ({"question": QUESTION}, "takes"),
        ({"question": QUESTION, "context": "a text"}, "context is str; give a list"),
        ({"question": QUESTION, "context": [1]}, "context is list; give a list"),
    ):
        with pytest.raises(SettingsError, match=message):
            LLM2CompAnswerer(reader).invoke(wrong)
