"""Frameworks that load sentence-transformers folders load an exported model, with the original's vectors."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.model import LLM2Comp
from tests.conftest import QUERY_INSTRUCTION
from tests.export.test_export import AWKWARD
from tests.test_model import close

NOT_INSTALLED = "not among the packages of make setup: pip install {}"
TEXTS = [text for text in AWKWARD if text]


def test_llama_index(model: LLM2Comp, exported_model: Path) -> None:
    huggingface = pytest.importorskip(
        "llama_index.embeddings.huggingface", reason=NOT_INSTALLED.format("llama-index-embeddings-huggingface")
    )
    # the class replaces the prompts of every model it loads, so the instruction has to be given again
    embedding = huggingface.HuggingFaceEmbedding(str(exported_model), query_instruction=QUERY_INSTRUCTION, device="cpu")
    assert embedding.max_length == 64
    close(embedding.get_text_embedding_batch(TEXTS), model.encode_document(TEXTS))
    close([embedding.get_query_embedding(text) for text in TEXTS], model.encode_query(TEXTS))


def test_langchain(model: LLM2Comp, exported_model: Path) -> None:
    huggingface = pytest.importorskip("langchain_huggingface", reason=NOT_INSTALLED.format("langchain-huggingface"))
    embeddings = huggingface.HuggingFaceEmbeddings(
        model_name=str(exported_model), model_kwargs={"device": "cpu"}, query_encode_kwargs={"prompt_name": "query"}
    )
    texts = [text for text in TEXTS if "\n" not in text]  # the class puts spaces in the place of newlines
    close(embeddings.embed_documents(texts), model.encode_document(texts))
    close([embeddings.embed_query(text) for text in texts], model.encode_query(texts))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, exported; a trained one."""
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    llm2comp.load(device="cpu", dtype="float32").export(folder)
    return folder


def test_scikit_learn(tiny: Path) -> None:
    """A pipeline of an encoder and a classifier, in cross-validation."""
    selection = pytest.importorskip("sklearn.model_selection")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    encoder = SentenceTransformer(str(tiny), device="cpu")
    texts, labels = topics()
    pipeline = make_pipeline(FunctionTransformer(lambda batch: encoder.encode(list(batch))), LogisticRegression(C=10))
    assert selection.cross_val_score(pipeline, np.array(texts), labels, cv=3).mean() > 0.8


@pytest.mark.filterwarnings(
    "ignore:Importing from 'sentence_transformers.models':DeprecationWarning"
)  # which BERTopic does
def test_bertopic(tiny: Path) -> None:
    """BERTopic loads the folder by name; its topics are the three subjects of the texts."""
    bertopic = pytest.importorskip("bertopic", reason=NOT_INSTALLED.format("bertopic"))
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import adjusted_rand_score

    reduction, clustering = PCA(5, random_state=0), KMeans(3, n_init=10, random_state=0)
    topic_model = bertopic.BERTopic(embedding_model=str(tiny), umap_model=reduction, hdbscan_model=clustering)
    texts, labels = topics()
    clusters, _ = topic_model.fit_transform(texts)
    assert adjusted_rand_score(labels, clusters) > 0.8
    assert topic_model.transform([texts[0]])[0][0] == clusters[0]


def topics() -> tuple[list[str], np.ndarray]:
    """30 sentences about cooking, music and programming, and their labels."""
    cooking = ["soup", "bread", "pasta", "a cake", "rice", "an omelette", "beans", "a salad", "the roast", "dumplings"]
    music = ["violin", "piano", "guitar", "flute", "cello", "trumpet", "drums", "harp", "clarinet", "organ"]
    code = ["list", "file", "string", "dictionary", "socket", "thread", "path", "tuple", "module", "exception"]
    texts = [f"Season {thing} with salt and let it cook in the oven." for thing in cooking]
    texts += [f"She plays the {thing} in an orchestra that gives concerts." for thing in music]
    texts += [f"Return a new {thing}, or raise an error if the argument is invalid." for thing in code]
    return texts, np.repeat([0, 1, 2], 10)
