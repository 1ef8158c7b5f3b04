"""What an encoding benchmark measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llm2comp.backbone.hardware import choose_device
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.checks import check_at_least, check_names, check_peer, check_precision
from llm2comp_benchmarks.cost.encode.peers import ENGINES, PEERS
from llm2comp_benchmarks.cost.shapes import Shape
from llm2comp_benchmarks.cost.text_kinds import TEXT_KINDS

__all__ = ["EncodeBenchmark"]


@dataclass(frozen=True, slots=True)
class EncodeBenchmark:
    """What is measured.

    Attributes:
        workdir: Folder for models and texts, which are removed at the end.
        model: Name or folder of a model; None: the bundled one.
        shape: Random weights of this shape instead; see `shapes.Shape`.
        corpora: Sources whose documents are encoded.
        limit: Number of documents, drawn at random from all.
        kinds: Kinds of texts that are made of them, some of `text_kinds.TEXT_KINDS`; each is measured by itself.
        peers: Some of `peers.PEERS`.
        peer_llm2vec: Python of an environment with llm2vec 0.2.3, for a comparison on a random Llama of 15M parameters
            and 512 texts; None: left out.
        node_modules: Folder with node-llama-cpp, which the peer llama.cpp needs.
        precision: Of our system: `float32`, `bfloat16`, or `auto` for both where the processor multiplies bfloat16,
            else float32.
        batch_size: Of our system; None: its default. Peers always take their default.
        threads: In every process.
        rounds: In each of which every system encodes all texts once.
        seed: Of the draw and of random weights.
        device: That all systems run on. On a GPU memory is the GPU's, and weights are written in one precision.
    """

    workdir: Path
    model: str | None = None
    shape: str | None = None
    corpora: tuple[str, ...] = ("python-docs:all",)
    limit: int = 5000
    kinds: tuple[str, ...] = ("document",)
    peers: tuple[str, ...] = ("sentence-transformers", "transformers")
    peer_llm2vec: Path | None = None
    node_modules: Path = Path("node_modules")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: int | None = None
    threads: int = 1
    rounds: int = 3
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("limit", "threads", "rounds", "batch_size"), 1))
        check_names("peers", self.peers, PEERS)
        check_names("kinds", self.kinds, TEXT_KINDS)
        if not self.kinds:
            raise SettingsError(f"kinds is empty; give some of {', '.join(TEXT_KINDS)}")
        check_precision(self.precision)
        if self.model is not None and self.shape is not None:
            raise SettingsError(f"model {self.model} and shape {self.shape}: give one of them")
        if self.shape is not None:
            Shape.parse(self.shape)
        engines = [name for name in self.peers if name in ENGINES]
        if self.device != "cpu" and engines:
            raise SettingsError(f"{', '.join(engines)}: compared on the CPU only; leave out with device {self.device}")
        if self.device != "cpu" and self.peer_llm2vec is not None:
            raise SettingsError(f"llm2vec is compared on the CPU only; leave it out with device {self.device}")
        choose_device(self.device)
        check_peer(self.peer_llm2vec, "llm2vec")
