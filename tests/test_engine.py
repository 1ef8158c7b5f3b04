"""`load(engine="openvino")`: the vectors of the bundled model are those of PyTorch, in either precision."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import llm2comp
from llm2comp import LLM2Comp
from llm2comp.bundled_models import bundled_folder
from llm2comp.errors import BackboneError, SettingsError
from tests.child_process import run_python
from tests.threads import torch_threads

pytestmark = pytest.mark.skipif(not bundled_folder().is_dir(), reason="the bundled model is not in this checkout")

TEXTS = [
    "",
    "Return the square root of x.",
    *(f"Item {row}: remove a file or directory tree, " + "and its parents " * row for row in range(20)),
    "one long text that is cut to its beginning " * 200,
]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


@pytest.fixture(scope="module")
def exact() -> LLM2Comp:
    return llm2comp.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def fast(request: pytest.FixtureRequest) -> LLM2Comp:
    pytest.importorskip("openvino", reason='OpenVINO is not installed: pip install "llm2comp[openvino]"')
    return llm2comp.load(device="cpu", dtype=request.param, engine="openvino")


def assert_same(vectors: np.ndarray, expected: np.ndarray) -> None:
    assert vectors.shape == expected.shape
    cosines = (vectors * expected).sum(-1) / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() >= 0.999


def test_vectors_are_those_of_torch_in_float32(fast: LLM2Comp, exact: LLM2Comp) -> None:
    assert_same(fast.encode_document(TEXTS), exact.encode_document(TEXTS))
    assert_same(fast.encode_query(TEXTS), exact.encode_query(TEXTS))
    assert_same(fast.encode_memory(TEXTS[:5]), exact.encode_memory(TEXTS[:5]))


@pytest.mark.parametrize("text", TEXTS[:3])
def test_one_text(fast: LLM2Comp, exact: LLM2Comp, text: str) -> None:
    assert_same(fast.encode_query(text), exact.encode_query(text))
    assert_same(fast.encode_memory(text), exact.encode_memory(text))


def test_several_threads_at_once(fast: LLM2Comp) -> None:
    expected = fast.encode_document(TEXTS)
    with ThreadPoolExecutor(3) as pool:
        for vectors in pool.map(lambda _: fast.encode_document(TEXTS), range(6)):
            np.testing.assert_allclose(vectors, expected, atol=1e-3)


def test_the_fingerprint_does_not_depend_on_the_engine() -> None:
    pytest.importorskip("openvino")
    engines = ("auto", "torch", "openvino")
    assert len({llm2comp.load(device="cpu", engine=engine).fingerprint for engine in engines}) == 1


def test_an_unknown_engine() -> None:
    with pytest.raises(SettingsError, match="engine is 'onnx'; give auto, torch or openvino"):
        llm2comp.load(engine="onnx")


def test_a_device_on_which_it_does_not_run() -> None:
    with pytest.raises(SettingsError, match="engine openvino runs on the CPU, and device is meta: give device cpu"):
        llm2comp.load(device="meta", engine="openvino")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackboneError, match=r'engine openvino needs openvino, .*pip install "llm2comp\[openvino\]"'):
        llm2comp.load(device="cpu", engine="openvino")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_encodes_with_torch() -> None:
    """Itself, after its parent used the engine, in a process that it forks in turn, and with a model of its own."""
    pytest.importorskip("openvino")
    code = """
import llm2comp, numpy as np, sys
model = llm2comp.load(device="cpu", dtype="float32", engine="openvino")
TEXTS = ["Remove a file or directory.", "Return the square root of x."] * 40
expected = model.encode_document(TEXTS)

def works():
    return np.allclose(model.encode_document(TEXTS), expected, atol=1e-4)

def loads():
    try:
        llm2comp.load(device="cpu", engine="openvino")
    except llm2comp.errors.BackboneError as error:
        return "forked" in str(error)

assert in_fork(works)
assert in_fork(lambda: in_fork(works))
assert in_fork(lambda: loads() and works())
child = os.fork()
if not child:
    signal.alarm(30)
    sys.exit(0)  # ends as a process does that frees what it holds
assert os.waitpid(child, 0)[1] == 0
assert works()
"""
    run_python(code, environment={"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"})
