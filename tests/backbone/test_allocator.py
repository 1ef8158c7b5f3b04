"""Freed memory stays in the process once `keep_freed_memory` was called, unless the user has configured malloc."""

import os
import platform
import subprocess
import sys

import pytest

_ROUNDS = """
import resource, torch, llm2comp
kept = llm2comp.keep_freed_memory()
def work():
    pieces = [torch.ones(2**21) for _ in range(4)]  # 8 MiB each, as a pass's activations are
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_PAGES = 20 * 4 * 2**23 // os.sysconf("SC_PAGE_SIZE")
"""Pages that the rounds touch."""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")


def _run(script: str, **environment: str) -> list[str]:
    """Words printed by a new Python process that inherits no setting of malloc."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return subprocess.run(
        [sys.executable, "-c", script], env={**inherited, **environment}, capture_output=True, text=True, check=True
    ).stdout.split()


def _rounds(**environment: str) -> tuple[str, int]:
    kept, faults = _run(_ROUNDS, **environment)
    return kept, int(faults)


def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    kept, faults = _rounds()
    assert kept == "True"
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


_ENCODING = """
import types, llm2comp
from llm2comp.backbone import allocator
calls = []
library = types.SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments) or 1)
allocator.ctypes = types.SimpleNamespace(CDLL=lambda name: library)
model = llm2comp.load(dtype="float32")
model.encode(["a text"])
print(len(calls), llm2comp.keep_freed_memory(), len(calls))
"""


def test_encoding_leaves_malloc_as_it_is() -> None:
    assert _run(_ENCODING) == ["0", "True", "2"]


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


def test_threads_that_have_encoded_keep_little() -> None:
    """With freed memory kept, each would keep the activations of a pass, some 40 MB."""
    (grown,) = _run(_THREADS)
    assert int(grown) * os.sysconf("SC_PAGE_SIZE") < 80e6
