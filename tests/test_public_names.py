"""The public names, locked: adding or removing one is a decision."""

import subprocess
import sys

import pytest

import llm2comp


def test_names() -> None:
    assert llm2comp.__all__ == ["LLM2Comp", "__version__", "keep_freed_memory", "load"]
    for name in llm2comp.__all__:
        assert getattr(llm2comp, name)
    from llm2comp.model import LLM2Comp, load

    assert llm2comp.load is load
    assert llm2comp.LLM2Comp is LLM2Comp


def test_names_complete_before_they_are_imported() -> None:
    script = "import llm2comp, sys; print(dir(llm2comp), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['LLM2Comp', '__version__', 'keep_freed_memory', 'load'] False\n"


def test_methods_of_the_model() -> None:
    from sentence_transformers import SentenceTransformer

    kinds = [kind for kind in llm2comp.LLM2Comp.__mro__ if kind.__module__.startswith("llm2comp.")]
    ours = {name for kind in kinds for name in vars(kind) if not name.startswith("_")}
    assert ours == {
        "changed",
        "device",
        "encode",
        "encode_memory",
        "encode_vectors",
        "encoder",
        "eval",
        "export",
        "fingerprint",
        "from_backbone",
        "load",
        "memory_tokens",
        "save",
        "variant",
        "whitening",
    }
    assert issubclass(llm2comp.LLM2Comp, SentenceTransformer)
    for inherited in ("encode_query", "encode_document", "max_seq_length", "get_embedding_dimension", "similarity"):
        assert hasattr(llm2comp.LLM2Comp, inherited)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        llm2comp.nothing  # noqa: B018


def test_names_of_the_server() -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    import llm2comp_serve

    assert llm2comp_serve.__all__ == ["ServeSettings", "create_app"]


def test_errors() -> None:
    from llm2comp import errors

    classes = {name for name in errors.__all__ if name.endswith("Error")}
    assert classes == {
        "BackboneError",
        "ClusterError",
        "CorpusError",
        "IndexFolderError",
        "LLM2CompError",
        "ModelFolderError",
        "ServerError",
        "SettingsError",
        "StoreError",
        "TrainingError",
    }
    assert all(issubclass(getattr(errors, name), errors.LLM2CompError) for name in classes)


def test_importing_is_light() -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "faiss", "datasets")
    script = f"import llm2comp, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
