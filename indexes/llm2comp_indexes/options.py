"""Options of an index: type, precision and targets. The manifest keeps them, so that later changes follow them too."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from llm2comp.checked_json import check_known, take, take_count, take_number, take_optional
from llm2comp.errors import SettingsError
from llm2comp.units import format_ms

__all__ = [
    "DEFAULT_LATENCY_MS",
    "STORES",
    "ChunkEnd",
    "MEMORY_KINDS",
    "IndexOptions",
    "MemoryKind",
    "Store",
    "Targets",
    "format_latency",
    "read_chunks",
    "refuse_memory_vectors",
]

Store = Literal["float32", "float16", "int8"]
STORES: tuple[Store, ...] = get_args(Store)
MemoryKind = Literal["int8", "binary"]
MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)
ChunkEnd = Literal["sentences", "tokens"]
_CHUNK_END = ("chunk_at", "chunk_context")
_CHUNK_FIDELITY = ("chunk_fidelity", "chunk_reader")
_CHUNK_ENDS: tuple[ChunkEnd, ...] = get_args(ChunkEnd)

DEFAULT_LATENCY_MS = 10.0
"""Default latency limit, in milliseconds per query: about the time in which a small model encodes the query."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Memory, latency and recall that an index should keep to.

    Attributes:
        memory: Maximum number of bytes held in memory while searching; None: no limit. Never exceeded.
        latency_ms: Maximum median time of a single query in milliseconds; None: DEFAULT_LATENCY_MS.
        recall: Minimum share of the k nearest rows that a search finds, 0 to 1.
        k: Number of hits per query that recall is measured over.

    Raises:
        SettingsError: A value is out of its range.
    """

    memory: int | None = None
    latency_ms: float | None = None
    recall: float = 0.95
    k: int = 10

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 1:
            raise SettingsError(f"memory is {self.memory} bytes, expected at least 1 (or nothing, for no limit)")
        if self.latency_ms is not None and not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise SettingsError(f"latency is {self.latency_ms} ms, expected more than 0")
        if not 0 < self.recall <= 1:
            raise SettingsError(
                f"recall is {self.recall}, expected more than 0 and at most 1 (0.95: 95 of 100 true neighbours are "
                "found)"
            )
        if self.k < 1:
            raise SettingsError(f"k is {self.k}, expected at least 1")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Targets":
        """The targets from the JSON values of a manifest or report.

        Raises:
            ValueError: A field is unknown, missing, or out of its range.
        """
        check_known(content, cls.__dataclass_fields__, "its targets")
        latency = None if content.get("latency_ms", "") is None else take_number(content, "latency_ms")
        recall, k = take_number(content, "recall", most=1.0), take_count(content, "k", 1)
        return cls(take_optional(content, "memory", int), latency, recall, k)

    @property
    def latency(self) -> float:
        """Latency limit in milliseconds: `latency_ms`, or the default."""
        return DEFAULT_LATENCY_MS if self.latency_ms is None else self.latency_ms

    def allows(self, memory: int) -> bool:
        """Whether `memory` bytes are within the budget."""
        return self.memory is None or memory <= self.memory


def format_latency(targets: Targets) -> str:
    """The latency limit as text: at most 10 ms (the default)."""
    return f"at most {format_ms(targets.latency)}" + (" (the default)" if targets.latency_ms is None else "")


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How an index is built.

    Attributes:
        type: `auto` (chosen by measuring), `flat`, `hnsw`, `ivf`, `ivfpq`, or a FAISS factory string.
        store: Precision of the stored vectors, from which every score is computed.
        targets: Memory, latency and recall: `auto` chooses the type by them, and every type is tuned to them.
            `wishes` is the older name of this field, as a keyword and as an attribute.
        chunk_tokens: Maximum number of the model's tokens in a chunk; None: a document is one row.
        chunk_overlap: Maximum number of tokens in the whole sentences that neighbouring chunks share; with `chunk_at`
            tokens, the number of tokens.
        hybrid: Whether to build a BM25 index as well.
        chunk_at: Where chunks end: `sentences` (at headings, paragraphs and sentences, in code at definitions) or
            `tokens` (after each `chunk_tokens` tokens of the text, even within a word, as in older versions).
        chunk_context: Whether the title of the document and the headings above a chunk are put before the text that is
            encoded; with `chunk_at` tokens, the title always is.
        chunk_fidelity: Instead of `chunk_tokens`, the smallest share, more than 0 and less than 1, of what a chunk's
            text is worth to a language model that its memory keeps; chunks are as long as that allows.
        chunk_reader: The language model: folder, Hub id or GGUF file; None: the model's own, if it has one.
        memory_vectors: Whether to store the vectors of each row's memory tokens too, for search with `rescore`: as
            `int8`, a byte a component, or `binary`, a bit. None: they are not stored.
        language: Language whose stems the BM25 index counts instead of words, by Snowball's name such as `english`;
            None: it counts words as they are written.

    Raises:
        SettingsError: Fields contradict each other, or `targets` and `wishes` are both given.
    """

    type: str
    store: Store
    targets: Targets
    chunk_tokens: int | None
    chunk_overlap: int
    hybrid: bool
    chunk_at: ChunkEnd
    chunk_context: bool
    chunk_fidelity: float | None
    chunk_reader: str | None
    memory_vectors: MemoryKind | None
    language: str | None

    def __init__(
        self,
        type: str = "auto",
        store: Store = "float32",
        targets: Targets | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap: int = 0,
        hybrid: bool = False,
        chunk_at: ChunkEnd = "sentences",
        chunk_context: bool = True,
        chunk_fidelity: float | None = None,
        chunk_reader: str | None = None,
        memory_vectors: MemoryKind | None = None,
        language: str | None = None,
        *,
        wishes: Targets | None = None,
    ) -> None:
        if targets is not None and wishes is not None:
            raise SettingsError(
                "targets and wishes are both given; wishes is the older name of targets: give targets only"
            )
        values = {"type": type, "store": store, "targets": targets or wishes or Targets()}
        values |= {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap, "hybrid": hybrid}
        values |= {"chunk_at": chunk_at, "chunk_context": chunk_context}
        values |= {"chunk_fidelity": chunk_fidelity, "chunk_reader": chunk_reader}
        values |= {"memory_vectors": memory_vectors, "language": language}
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the class is frozen
        if self.store not in STORES:
            raise SettingsError(f"store is {self.store!r}, expected one of {', '.join(STORES)}")
        if self.memory_vectors not in (None, *MEMORY_KINDS):
            raise SettingsError(
                f"memory_vectors is {self.memory_vectors!r}, expected one of {', '.join(MEMORY_KINDS)}, or nothing"
            )
        if self.language is not None and not self.hybrid:
            raise SettingsError(
                f"language is {self.language!r} without hybrid: only a BM25 index counts stems, so add one (--hybrid)"
            )
        self._check_chunks()

    def _check_chunks(self) -> None:
        if self.chunk_at not in _CHUNK_ENDS:
            raise SettingsError(f"chunk_at is {self.chunk_at!r}, expected one of {', '.join(_CHUNK_ENDS)}")
        self._check_fidelity()
        if not self.has_chunks:
            for name, default in (("chunk_overlap", 0), ("chunk_at", "sentences"), ("chunk_context", True)):
                if (value := getattr(self, name)) != default:
                    raise SettingsError(f"{name} is {value} without chunk_tokens: give the size of a chunk too")
        if self.chunk_at == "tokens" and not self.chunk_context:
            raise SettingsError("chunk_context is False with chunk_at tokens, which always puts the title first")
        if self.chunk_tokens is not None and self.chunk_tokens < 1:
            raise SettingsError(f"chunk_tokens is {self.chunk_tokens}, expected at least 1")
        if self.chunk_tokens is not None and not 0 <= self.chunk_overlap < self.chunk_tokens:
            raise SettingsError(
                f"chunk_overlap is {self.chunk_overlap} and chunk_tokens {self.chunk_tokens}: expected 0 <= overlap < "
                "tokens"
            )

    def _check_fidelity(self) -> None:
        if self.chunk_fidelity is None:
            if self.chunk_reader is not None:
                raise SettingsError(
                    f"chunk_reader is {self.chunk_reader} without chunk_fidelity: give the share that chunks keep too"
                )
            return
        if not 0 < self.chunk_fidelity < 1:
            raise SettingsError(
                f"chunk_fidelity is {self.chunk_fidelity}, expected more than 0 and less than 1 (0.6: the memory of a "
                "chunk keeps 60 % of what its text is worth)"
            )
        for name, default in (("chunk_tokens", None), ("chunk_overlap", 0), ("chunk_at", "sentences")):
            if (value := getattr(self, name)) != default:
                raise SettingsError(
                    f"{name} is {value} with chunk_fidelity {self.chunk_fidelity}, which finds the ends of chunks: "
                    "give one of them"
                )

    @property
    def has_chunks(self) -> bool:
        """Whether documents are cut into chunks."""
        return self.chunk_tokens is not None or self.chunk_fidelity is not None

    @property
    def wishes(self) -> Targets:
        """Older name of `targets`."""
        return self.targets

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values, under the names of the manifest (where `targets` is called `wishes`).

        Without chunks, or with chunks cut at tokens as older versions cut them, and without vectors of memory tokens
        and a language, the fields are those of older versions.
        """
        content = {"wishes" if name == "targets" else name: value for name, value in asdict(self).items()}
        if self.chunk_fidelity is None:
            content = {name: value for name, value in content.items() if name not in _CHUNK_FIDELITY}
        for name in ("memory_vectors", "language"):
            if content[name] is None:
                del content[name]
        return {name: value for name, value in content.items() if name not in _CHUNK_END or self.ends_at_sentences}

    @property
    def chunk_size(self) -> str:
        """Name of the option that says how long chunks are; empty without chunks."""
        return "chunk_tokens" if self.chunk_tokens is not None else "chunk_fidelity" if self.has_chunks else ""

    @property
    def chunks(self) -> tuple[int | None, int, ChunkEnd, bool, float | None, str | None]:
        """All options of chunks, which texts have to be encoded again to change."""
        cut = self.chunk_tokens, self.chunk_overlap, self.chunk_at, self.chunk_context
        return *cut, self.chunk_fidelity, self.chunk_reader

    def describe_chunks(self) -> str:
        """How texts are cut, as text: 256 tokens, 0 shared; empty without chunks."""
        if not self.has_chunks:
            return ""
        ends = "" if self.chunk_at == "sentences" else ", cut at tokens"
        context = "" if self.chunk_context else ", without title and headings"
        if self.chunk_fidelity is not None:
            reader = f", as {self.chunk_reader} reads them" if self.chunk_reader else ""
            return f"a fidelity of {self.chunk_fidelity:g}{reader}{context}"
        return f"{self.chunk_tokens} tokens, {self.chunk_overlap} shared{ends}{context}"

    @property
    def ends_at_sentences(self) -> bool:
        """Whether there are chunks, and they end at sentences."""
        return self.has_chunks and self.chunk_at == "sentences"

    def chunk_json(self) -> dict[str, Any]:
        """How chunks are cut, as JSON values; empty if it is as in older versions, which did not record it."""
        names = (*_CHUNK_END, *(_CHUNK_FIDELITY if self.chunk_fidelity is not None else ()))
        return {name: getattr(self, name) for name in names} if self.ends_at_sentences else {}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "IndexOptions":
        """The options that `to_json` gave.

        Raises:
            ValueError: A field is unknown, missing, of another type, or contradicts another.
        """
        check_known(content, {"wishes", *cls.__dataclass_fields__} - {"targets"}, "its options")
        store: Any = take(content, "store", str)  # of a literal type, which the constructor checks
        memory_vectors: Any = take(content, "memory_vectors", str) if "memory_vectors" in content else None
        return cls(
            take(content, "type", str),
            store,
            Targets.from_json(take(content, "wishes", dict)),
            hybrid=take(content, "hybrid", bool),
            memory_vectors=memory_vectors,
            language=take(content, "language", str) if "language" in content else None,
            **read_chunks(content),
        )


def refuse_memory_vectors(options: IndexOptions, made: str) -> None:
    """Raises SettingsError if the options ask for vectors of memory tokens, which what is `made` does not hold."""
    if options.memory_vectors is not None:
        raise SettingsError(
            f"memory_vectors is {options.memory_vectors!r}, but {made}: only a build from the corpus in one process "
            "(llm2comp index build CORPUS) makes them; leave it out"
        )


def read_chunks(content: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `IndexOptions` about chunks, from the fields of a manifest or a shard.

    Raises:
        ValueError: A field is missing, or of another type.
    """
    tokens = take_optional(content, "chunk_tokens", int)
    chunks: dict[str, Any] = {"chunk_tokens": tokens, "chunk_overlap": take(content, "chunk_overlap", int)}
    if "chunk_at" in content:
        chunks |= {"chunk_at": take(content, "chunk_at", str), "chunk_context": take(content, "chunk_context", bool)}
    elif tokens is not None:
        chunks["chunk_at"] = "tokens"
    if "chunk_fidelity" in content:
        chunks |= {"chunk_fidelity": take_number(content, "chunk_fidelity", most=1.0)}
        chunks |= {"chunk_reader": take_optional(content, "chunk_reader", str)}
    return chunks
