"""Freed memory stays in the process, unless the user has said what becomes of it."""

import os
import platform
import subprocess
import sys

import pytest

_ROUNDS = """
import resource, torch
from llm2comp.backbone.allocator import keep_freed_memory
told = keep_freed_memory()
def work():
    pieces = [torch.ones(2**21) for _ in range(4)]  # 8 MiB each, as a pass's activations are
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_PAGES = 20 * 4 * 2**23 // os.sysconf("SC_PAGE_SIZE")
"""That the rounds touch."""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="what becomes of freed memory is told to glibc only"
)


def _answer(script: str, **environment: str) -> list[str]:
    """The words that a new Python prints, which inherits no setting of malloc."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return subprocess.run(
        [sys.executable, "-c", script], env={**inherited, **environment}, capture_output=True, text=True, check=True
    ).stdout.split()


def _rounds(**environment: str) -> tuple[str, int]:
    told, faults = _answer(_ROUNDS, **environment)
    return told, int(faults)


def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    told, faults = _rounds()
    assert told == "True"
    assert faults < _PAGES / 5


@pytest.mark.parametrize(
    "setting",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_a_users_own_setting_stands(setting: dict[str, str]) -> None:
    assert _rounds(**setting)[0] == "False"


def test_a_setting_of_something_else_does_not_count() -> None:
    assert _rounds(GLIBC_TUNABLES="glibc.cpu.x86_hwcaps=AVX2_Usable")[0] == "True"


_THREAD_BETWEEN = """
import threading
from llm2comp.backbone.allocator import keep_freed_memory
answers = [keep_freed_memory()]
thread = threading.Thread(target=lambda: answers.append(keep_freed_memory()))
thread.start()
thread.join()
print(*answers, keep_freed_memory())
"""


def test_another_thread_ends_it_for_good() -> None:
    assert _answer(_THREAD_BETWEEN) == ["True", "False", "False"]


_THREADS = """
import threading
from pathlib import Path
import torch
import llm2comp

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

torch.set_num_threads(1)
model, texts = llm2comp.load(dtype="float32"), ["so many words " * 60] * 12
model.encode(texts)
before = resident()
threads = [threading.Thread(target=model.encode, args=[texts]) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident() - before)
"""


def test_threads_that_have_encoded_keep_nothing() -> None:
    """By itself each would keep the activations of a pass, some 40 MB."""
    (grown,) = _answer(_THREADS)
    assert int(grown) * os.sysconf("SC_PAGE_SIZE") < 80e6
