"""Forked processes search and encode: none of them waits for threads that only its parent has."""

import os
import sys
from pathlib import Path

import pytest

from tests.child_process import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

TWO_THREADS = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}

SEARCH = """
import json, os, sys, threading
from pathlib import Path
from llm2comp_indexes import IndexOptions, SearchOptions, build_index, open_index
from tests.word_encoder import WordEncoder

folder = Path(sys.argv[1])
rows = [json.dumps({"_id": str(row), "text": f"bread {row} oven {row % 7}", "year": row}) for row in range(600)]
(folder / "corpus.jsonl").write_text("\\n".join(rows))
build_index([folder / "corpus.jsonl"], folder / "index", model=WordEncoder(), options=IndexOptions(sys.argv[2]))
index = open_index(folder / "index", model=WordEncoder())
OPTIONS = SearchOptions(), SearchOptions(threads=4), SearchOptions(where="year >= 20")

def search():
    answers = [index.search(["bread", "oven 3"] * 25, 3, options=chosen) for chosen in OPTIONS]
    return [[hit.id for hits in answer for hit in hits] for answer in answers]

expected = search()
"""

IN_THREAD = """
def in_thread():
    answers = []
    thread = threading.Thread(target=lambda: answers.append(search()))
    thread.start()
    thread.join()
    return answers == [expected]
"""


@pytest.mark.parametrize("kind", ["Flat", "IVF4,Flat", "HNSW8"])
def test_a_forked_process_searches(tmp_path: Path, kind: str) -> None:
    """Itself, in a thread of its own, and in a process that it forks in turn."""
    code = (
        SEARCH
        + IN_THREAD
        + """
assert in_fork(lambda: search() == expected)
assert in_fork(in_thread)
assert in_fork(lambda: in_fork(lambda: search() == expected))
assert search() == expected
"""
    )
    run_python(code, tmp_path, kind, environment=TWO_THREADS)


def test_a_forked_process_builds_an_index(tmp_path: Path) -> None:
    code = (
        SEARCH
        + """
def build():
    build_index([folder / "corpus.jsonl"], folder / "again", model=WordEncoder(), options=IndexOptions("IVF4,Flat"))
    with open_index(folder / "again", model=WordEncoder()) as again:
        return len(again) == 600

assert in_fork(build)
"""
    )
    run_python(code, tmp_path, "IVF4,Flat", environment=TWO_THREADS)


def test_workers_of_pools_and_of_a_data_loader_search(tmp_path: Path) -> None:
    """Their processes are forked on Linux, and know the index as a global variable."""
    code = (
        SEARCH
        + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from torch.utils.data import DataLoader

def found(_):
    return search()

class Answers:
    def __len__(self):
        return 2
    def __getitem__(self, row):
        return search()

forking = multiprocessing.get_context("fork")
with forking.Pool(1) as pool:
    assert pool.map_async(found, range(2)).get(40) == [expected] * 2
with ProcessPoolExecutor(1, forking) as pool:
    assert list(pool.map(found, range(2), timeout=40)) == [expected] * 2
loader = DataLoader(Answers(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=40)
assert list(loader) == [expected] * 2
"""
    )
    run_python(code, tmp_path, "Flat", environment=TWO_THREADS)


def test_a_forked_process_encodes_and_searches(tmp_path: Path) -> None:
    """As a server's workers do, forked after the model was loaded and used (gunicorn --preload)."""
    code = """
import os, sys, threading
from pathlib import Path
import numpy, torch
import llm2comp
from llm2comp_indexes import build_index, open_index

folder, model = Path(sys.argv[1]), llm2comp.load(device="cpu")
assert torch.get_num_threads() == 2
(folder / "a.md").write_text("how bread rises in the oven")
build_index([folder / "a.md"], folder / "index", model=model)
index = open_index(folder / "index", model=model)
texts = ["starts the threads " * 50] * 8
expected = model.encode_document(texts)

def work():
    assert torch.get_num_threads() == 1
    numpy.testing.assert_allclose(model.encode_document(texts), expected, atol=0.02)
    return bool(index.search(["bread"])[0])

assert in_fork(work)
numpy.testing.assert_array_equal(model.encode_document(texts), expected)
assert torch.get_num_threads() == 2
"""
    run_python(code, tmp_path, environment=TWO_THREADS)


USED_BEFORE = """
import sys
import faiss, numpy, torch

for _ in range(3):
    torch.randn(512, 512) @ torch.randn(512, 512)
vectors = numpy.random.default_rng(0).random((20_000, 64), numpy.float32)
used = faiss.IndexFlatL2(64)
used.add(vectors)
used.search(vectors[:64], 5)
assert "llm2comp" not in sys.modules

def work():
    import llm2comp
    vectors = llm2comp.load(device="cpu").encode_document(["starts the threads " * 50] * 8)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index.search(vectors, 1)[1].shape == (8, 1) and torch.get_num_threads() == 1
"""


def test_a_forked_process_encodes_where_the_parent_used_pytorch_and_faiss_before() -> None:
    run_python(USED_BEFORE + "import llm2comp\nassert in_fork(work)", environment=TWO_THREADS)


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 12), reason="shown by Python 3.11, and Linux's list of threads"
)
def test_a_process_that_imports_llm2comp_after_it_was_forked_encodes() -> None:
    run_python(USED_BEFORE + "assert in_fork(work)", environment=TWO_THREADS)


def test_a_process_that_was_not_forked_keeps_its_threads() -> None:
    code = """
import threading, torch
def work():
    import llm2comp, llm2comp.fork
    assert not llm2comp.fork.is_forked() and torch.get_num_threads() == 2
    done.append(True)
done = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert done
"""
    run_python(code, environment=TWO_THREADS)


def test_a_lock_held_by_a_thread_of_the_parent_does_not_hold_up_the_forked_process() -> None:
    """A thread of the parent may be in the middle of a text; one that forks within a block still leaves it."""
    code = """
import os, threading
from llm2comp.backbone.shared_lock import SharedLock

for hold in ("together", "alone"):
    lock, entered, leave = SharedLock(), threading.Event(), threading.Event()
    def work():
        with getattr(lock, hold)():
            entered.set()
            leave.wait(60)
    holder = threading.Thread(target=work)
    holder.start()
    assert entered.wait(60)

    def take():
        with lock.alone():
            pass
        with lock.together():
            return True

    assert in_fork(take)
    leave.set()
    holder.join()
    with getattr(lock, hold)():
        child = os.fork()
        signal.alarm(0 if child else 30)
    assert take()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code)
