"""RAG over a folder with LlamaIndex: a store on disk that is filled once, and asked ever after.

    pip install "llm2comp[cpu,llama-index]"
    python examples/rag_llama_index.py examples/handbook "How many days of leave do I have?"

Runs offline: texts are embedded by the bundled model, and LlamaIndex's MockLLM stands for a language model. It repeats
the prompt that a real one would get; put yours in its place. Run again, only files that changed are embedded.
"""

import argparse
from pathlib import Path

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.embeddings.llm2comp import LLM2CompEmbedding, LLM2CompVectorStore


def fill(folder: Path, work: Path, embedding: LLM2CompEmbedding) -> LLM2CompVectorStore:
    """The store, holding what the folder holds now."""
    store = LLM2CompVectorStore(work / "handbook.index", embedding)
    known = work / "docstore.json"
    docstore = SimpleDocumentStore.from_persist_path(str(known)) if known.exists() else SimpleDocumentStore()
    pipeline = IngestionPipeline(
        transformations=[MarkdownNodeParser(), embedding],
        vector_store=store,
        docstore=docstore,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,  # files that are gone leave the store
    )
    nodes = pipeline.run(documents=SimpleDirectoryReader(folder, filename_as_id=True).load_data())
    docstore.persist(str(known))
    print(f"{len(nodes)} nodes embedded")
    return store


def main() -> None:
    """Fills the store and asks it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--work", type=Path, default=Path("rag-llama-index"), help="where the store is kept")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    embedding = LLM2CompEmbedding()
    store = fill(arguments.folder, arguments.work, embedding)
    engine = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_query_engine(
        llm=MockLLM(), similarity_top_k=2
    )
    response = engine.query(arguments.question)
    for node in response.source_nodes:
        print(f"{node.score:.3f}  {node.metadata['file_name']}  {node.text.splitlines()[0]}")
    print(f"\nWhat the language model is asked:\n{response}")


if __name__ == "__main__":
    main()
