"""A tiny random model for tests of mechanics: the golden backbone in float32 on the CPU, with a non-zero adapter."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.paths import BACKBONE

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

QUERY_INSTRUCTION = "find: "

# Models this small are slower on two threads than on one, and many times slower where other work waits for the cores.
# Set before torch and FAISS are imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Takes back what a command that ran in this process has set: levels, and handlers that write to its stderr."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
    for name in ("llm2comp", "llm2comp_indexes", "llm2comp_benchmarks"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def make_model() -> "Callable[..., LLM2Comp]":
    """Function that builds a model from the golden backbone, with the options of `from_backbone`."""
    import torch

    from llm2comp.backbone.adapter import AdapterSettings
    from llm2comp.model import LLM2Comp

    def make(backbone: Path = BACKBONE, memory_tokens: int = 4, **options: Any) -> LLM2Comp:
        settings = {
            "adapter": AdapterSettings(rank=4),
            "max_length": 64,
            "query_instruction": QUERY_INSTRUCTION,
            "device": "cpu",
            **options,
        }
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = LLM2Comp.from_backbone(backbone, memory_tokens, **settings)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:  # zero in a new adapter, which then has no effect
                    parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model

    return make


@pytest.fixture(scope="session")
def model(make_model: "Callable[..., LLM2Comp]") -> "LLM2Comp":
    """A model that several tests share; they must not change it."""
    return make_model()


@pytest.fixture(scope="session")
def saved_model(model: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the shared model; tests must not change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture(scope="session")
def exported_model(model: "LLM2Comp", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain sentence-transformers model exported from the shared model; tests must not change it."""
    folder = tmp_path_factory.mktemp("exported") / "plain"
    model.export(folder)
    return folder


@pytest.fixture
def model_folder(saved_model: Path, tmp_path: Path) -> Path:
    """Copy of the saved model that a test may change."""
    return Path(shutil.copytree(saved_model, tmp_path / "model"))


@pytest.fixture
def backbone_folder(tmp_path: Path) -> Path:
    """Copy of the golden backbone that a test may change."""
    return Path(shutil.copytree(BACKBONE, tmp_path / "backbone"))
