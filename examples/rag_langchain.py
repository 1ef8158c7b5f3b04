"""RAG over a folder with LangChain: an index of llm2comp that follows the folder, words and vectors together.

    pip install "llm2comp[cpu,langchain]"
    python examples/rag_langchain.py examples/handbook "What may a hotel cost?"

Runs offline: texts are embedded by the bundled model, and a function that repeats its prompt stands for a language
model; put yours in its place.
"""

import argparse
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from langchain_llm2comp import LLM2CompRetriever
from llm2comp_indexes import IndexOptions, build_index, sync_index

PROMPT = ChatPromptTemplate.from_template(
    "Answer from these notes, and name the file you took it from.\n\n{notes}\n\nQuestion: {question}"
)


def update(folder: Path, index: Path) -> None:
    """Builds the index of the folder, or brings it to what the folder holds now."""
    if not index.exists():
        options = IndexOptions(chunk_tokens=64, hybrid=True)
        print(f"{build_index([folder], index, options=options).documents} documents indexed")
        return
    report = sync_index(index, [folder])
    print(f"{report.added} new, {report.changed} changed, {len(report.vanished)} gone, {report.unchanged} unchanged")


def cite(documents: list[Document]) -> str:
    """The texts of the documents, each under its id: the file and the number of the chunk."""
    return "\n\n".join(f"[{document.id}]\n{document.page_content}" for document in documents)


def main() -> None:
    """Updates the index and asks it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--index", type=Path, default=Path("handbook.index"))
    arguments = parser.parse_args()
    update(arguments.folder, arguments.index)
    retriever = LLM2CompRetriever(arguments.index, k=2, mode="hybrid")
    language_model = RunnableLambda(lambda prompt: prompt.to_string())
    chain = {"notes": retriever | cite, "question": RunnablePassthrough()} | PROMPT | language_model | StrOutputParser()
    print(f"\nWhat the language model is asked:\n{chain.invoke(arguments.question)}")


if __name__ == "__main__":
    main()
