"""Index types, by name or FAISS factory string: default parameters for a number of rows, and the memory they need."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.options import Store

__all__ = ["NAMES", "Family", "IndexType", "IvfParts", "default_type", "memory_bytes", "new_index", "parse_type"]

Family = Literal["flat", "hnsw", "ivf", "other"]
NAMES = ("flat", "hnsw", "ivf", "ivfpq")
"""Types whose parameters are chosen here; any other text is a FAISS factory string."""

POINTS_PER_LIST = 39
"""Minimum number of training vectors per k-means centroid that FAISS asks for."""

_HNSW = re.compile(r"HNSW([1-9]\d{0,2})(?:,Flat)?")
_IVF = re.compile(
    r"(?:(?P<transform>OPQ|PCAR|PCA|RR)(?P<size>[1-9]\d{0,4})(?:_(?P<output>[1-9]\d{0,4}))?,)?"
    r"IVF(?P<lists>[1-9]\d{0,7})(?:_HNSW(?P<links>[1-9]\d{0,2}))?,"
    r"(?P<codes>Flat|SQ4|SQ6|SQ8|SQfp16|SQbf16|PQ(?P<parts>[1-9]\d{0,3})(?:x(?P<bits>[4-9]|1[0-2]))?)"
)
_BITS = {"Flat": 32, "SQfp16": 16, "SQbf16": 16, "SQ8": 8, "SQ6": 6, "SQ4": 4}
_LONGEST = 200
_MOST_LINKS = 1000
_MOST = 1 << 22
"""Largest number in a factory string while the number of rows is unknown: lists for billions of rows.

FAISS allocates them at once.
"""
_ID_BYTES = 8
_MOST_BITS = 12


class IvfParts(NamedTuple):
    """Parameters in the factory string of an IVF index.

    Attributes:
        transform: OPQ, PCA, PCAR or RR before the lists, or None.
        output: Dimension after the transform; None if it does not change.
        lists: Number of lists (nlist).
        links: M of the HNSW graph over the centroids; None if all centroids are compared.
        codes: Encoding of the vectors in the lists: Flat, SQ8, PQ32x8 …
        parts: M of a product quantizer, else None.
        bits: Bits per part of a product quantizer, else per component.
    """

    transform: str | None
    output: int | None
    lists: int
    links: int | None
    codes: str
    parts: int | None
    bits: int


@dataclass(frozen=True)
class IndexType:
    """A kind of index with its parameters.

    Attributes:
        factory: FAISS factory string: "Flat", "HNSW32", "IVF1024,SQfp16", "OPQ64_256,IVF4096,PQ64x8" …
    """

    factory: str

    @cached_property
    def family(self) -> Family:
        """Which code builds, saves and checks it; "other" is any type that only FAISS knows."""
        if self.factory == "Flat":
            return "flat"
        if _HNSW.fullmatch(self.factory):
            return "hnsw"
        return "ivf" if _IVF.fullmatch(self.factory) else "other"

    @property
    def links(self) -> int:
        """M of an HNSW index: links of a row at the upper levels, and half of those at the lowest."""
        match = _HNSW.fullmatch(self.factory)
        assert match is not None
        return int(match[1])

    @cached_property
    def lists(self) -> int | None:
        """Number of inverted lists, of which a search visits nprobe; None if there are none."""
        match = re.search(r"(?:^|,)IVF(\d+)", self.factory)
        return int(match[1]) if match else None

    @cached_property
    def walks_graph(self) -> bool:
        """Whether a search walks an HNSW graph over the vectors, so that ef_search counts (not one over centroids)."""
        return re.search(r"(?:^|,)HNSW\d", self.factory) is not None

    @cached_property
    def ivf(self) -> IvfParts:
        """Parameters of an IVF index."""
        match = _IVF.fullmatch(self.factory)
        assert match is not None
        number = {
            name: int(text) if (text := match[name]) else None
            for name in ("size", "output", "lists", "links", "parts", "bits")
        }
        output = number["output"] or (number["size"] if (match["transform"] or "").startswith(("PCA", "RR")) else None)
        bits = _BITS.get(match["codes"]) or number["bits"] or 8
        return IvfParts(
            match["transform"], output, int(match["lists"]), number["links"], match["codes"], number["parts"], bits
        )


def parse_type(text: str, *, rows: int | None, dimension: int) -> IndexType:
    """The index type with the name (flat, hnsw, ivf, ivfpq; parameters for this number of rows) or factory string.

    Args:
        text: A name or a FAISS factory string.
        rows: Number of rows in the index; None if not known yet: names then get parameters for few rows, and whatever
            depends on the number is not checked.
        dimension: Length of a vector.

    Raises:
        SettingsError: FAISS knows no such type, it has no inner product, or its numbers do not suit the rows or the
            dimension.
    """
    if text in NAMES:
        return default_type(text, rows=rows or 0, dimension=dimension)
    _check_numbers(text, rows, dimension)
    hnsw = _HNSW.fullmatch(text)
    kind = IndexType(f"HNSW{hnsw[1]}" if hnsw else text)
    if kind.family == "ivf" and rows is not None and kind.ivf.lists > max(rows, 1):
        raise SettingsError(
            f"type is {text!r}: {kind.ivf.lists:,} lists for {rows:,} rows; expected at most a list per row, or ivf, "
            "which chooses their number"
        )
    if kind.family != "flat":
        _check_transforms(new_index(kind, dimension), kind)
    memory_bytes(kind, rows=rows or 0, dimension=dimension, store="float32")  # raises where FAISS does not know
    return kind


def _check_numbers(text: str, rows: int | None, dimension: int) -> None:
    """Raises SettingsError for numbers that would make FAISS use unbounded memory or never finish."""
    largest = _MOST if rows is None else max(rows, 1 << 16, dimension)
    numbers = [int(number) for number in re.findall(r"\d+", text[: _LONGEST + 1])]
    if len(text) > _LONGEST or not (text.isascii() and text.isprintable()) or max(numbers, default=1) > largest:
        size = "any size" if rows is None else f"{rows:,} rows"
        raise SettingsError(
            f"type is {text[:60]!r}, whose numbers are beyond an index of {size}; expected {', '.join(NAMES)} or a "
            "FAISS factory string"
        )
    if "IMI" in text or any(int(bits) > _MOST_BITS for bits in re.findall(r"x(\d+)", text)):
        raise SettingsError(
            f"type is {text!r}, whose tables have gigabytes whatever the rows; expected codes of at most {_MOST_BITS} "
            "bits and lists by IVF"
        )
    if min(numbers, default=1) < 1 or any(
        not 2 <= int(links) <= _MOST_LINKS for links in re.findall(r"(?:HNSW|NSG)(\d+)", text)
    ):
        raise SettingsError(
            f"type is {text!r}, expected numbers of at least 1, and two to {_MOST_LINKS:,} links for each row of a "
            "graph (HNSW32, NSG32)"
        )


def _check_transforms(index: Any, kind: IndexType) -> None:
    """Raises SettingsError for a transform that cannot be trained, which FAISS would notice only in training."""
    faiss = import_faiss()
    for place in range(index.chain.size() if isinstance(index, faiss.IndexPreTransform) else 0):
        transform = faiss.downcast_VectorTransform(index.chain.at(place))
        if isinstance(transform, faiss.PCAMatrix | faiss.ITQTransform) and transform.d_out > transform.d_in:
            raise SettingsError(
                f"type is {kind.factory!r}: {transform.d_out} dimensions out of {transform.d_in}; expected at most as "
                "many as there are"
            )
        if isinstance(transform, faiss.OPQMatrix) and transform.d_out % transform.M:
            raise SettingsError(
                f"type is {kind.factory!r}: {transform.d_out} dimensions in {transform.M} parts; expected a multiple, "
                "such as OPQ8_64"
            )


def new_index(kind: IndexType, dimension: int) -> Any:
    """An empty, untrained FAISS index of the type, with inner product as metric.

    Raises:
        SettingsError: FAISS cannot make it.
    """
    faiss = import_faiss()
    try:
        index = faiss.index_factory(dimension, kind.factory, faiss.METRIC_INNER_PRODUCT)
        cause = "" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "it makes one by Euclidean distance"
    except (RuntimeError, MemoryError) as error:
        cause = str(error).rsplit("Error: ", 1)[-1].strip().rsplit(": ", 1)[-1] or type(error).__name__
    if cause:
        raise SettingsError(
            f"type is {kind.factory!r}, which FAISS cannot make for dimension {dimension} by inner product ({cause}); "
            f"expected {', '.join(NAMES)} or a FAISS factory string"
        )
    return index


def default_type(name: str, *, rows: int, dimension: int) -> IndexType:
    """The named type with parameters for this number of rows.

    - flat: no parameter.
    - hnsw: M is 16 up to 100,000 rows, else 32. More rows need more links per row, which take 8 M bytes.
    - ivf: about 4 √rows lists, so that comparing centroids and comparing the vectors of the probed lists take about
      the same time; at most rows / 39, so that each centroid is trained on enough vectors. From 16,384 lists on, the
      centroids are found through an HNSW graph. Vectors are kept in float16: candidates are scored again with the
      stored vectors, so the rounding costs no accuracy and saves half the memory.
    - ivfpq: the same lists; about a byte for 4 components (at least 8 bytes, at most 128), after an OPQ rotation, which
      spreads the variance over the parts and, above 512 dimensions, reduces them to 4 per part. With fewer than 10,000
      rows (39 for each of 256 centroids), parts have 4 bits.
    """
    if name == "flat":
        return IndexType("Flat")
    if name == "hnsw":
        return IndexType("HNSW16" if rows <= 100_000 else "HNSW32")
    lists = max(1, min(round(4 * math.sqrt(rows)), rows // POINTS_PER_LIST))
    coarse = f"IVF{lists}" + ("_HNSW32" if lists >= 16384 else "")
    if name == "ivf":
        return IndexType(f"{coarse},SQfp16")
    if name != "ivfpq":
        raise SettingsError(f"type is {name!r}, expected one of {', '.join(NAMES)}")
    parts = min(128, max(8, dimension // 4)) if dimension >= 8 else dimension
    width = max(1, min(dimension // parts, 4 if dimension > 512 else dimension))
    bits = 8 if rows >= POINTS_PER_LIST * 256 else 4
    return IndexType(f"OPQ{parts}_{parts * width},{coarse},PQ{parts}x{bits}")


def memory_bytes(kind: IndexType, *, rows: int, dimension: int, store: Store) -> int:
    """Resident bytes that searching needs once every part of the index has been read.

    Flat and HNSW compare the stored vectors, so these are included. IVF compares its own codes; re-ranking reads
    single stored vectors from disk.

    Raises:
        SettingsError: FAISS does not know the size of the codes of such an index.
    """
    if kind.family == "flat":
        return storage_bytes(rows, dimension, store)
    if kind.family == "hnsw":
        return storage_bytes(rows, dimension, store) + _graph_bytes(rows, kind.links)
    if kind.family == "ivf":
        return _ivf_bytes(kind.ivf, rows, dimension)
    index = new_index(kind, dimension)
    try:
        per_row, fixed = _faiss_bytes(index)
    except RuntimeError as error:
        raise SettingsError(
            f"type is {kind.factory!r}, whose size FAISS does not report; expected {', '.join(NAMES)} or another string"
        ) from error
    return rows * per_row + fixed + len(import_faiss().serialize_index(index))


def _faiss_bytes(index: Any) -> tuple[int, int]:
    """Bytes per row of any FAISS index, and bytes that training adds to an empty one, as far as FAISS knows them."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base, refined = _faiss_bytes(index.base_index), _faiss_bytes(index.refine_index)
        return base[0] + refined[0], base[1] + refined[1]
    if isinstance(index, faiss.IndexIDMap):
        row, fixed = _faiss_bytes(index.index)
        return row + _ID_BYTES, fixed
    if isinstance(index, faiss.IndexPreTransform):
        row, fixed = _faiss_bytes(index.index)
        transforms = [index.chain.at(place) for place in range(index.chain.size())]
        # PCA keeps all components, d_in * d_in, beside those it uses
        return row, fixed + sum(4 * transform.d_in * (transform.d_out + transform.d_in) for transform in transforms)
    if isinstance(index, faiss.IndexHNSW | faiss.IndexNSG):
        row, fixed = _faiss_bytes(index.storage)
        if isinstance(index, faiss.IndexHNSW):
            return row + _graph_bytes(1, index.hnsw.nb_neighbors(1)), fixed
        return row + 4 * (index.nsg.R + 1), fixed
    codebooks = 4 * index.aq.total_codebook_size * index.aq.d if hasattr(index, "aq") else 0
    if isinstance(index, faiss.IndexIVF):
        return index.code_size + _ID_BYTES, index.nlist * (4 * index.d + 8) + codebooks
    return index.sa_code_size(), codebooks


def _graph_bytes(rows: int, links: int) -> int:
    """Bytes of an HNSW graph: links of 4 bytes, and the level (4) and offset (8) of each row.

    A row has 2 M links at the lowest level and M at each upper one, which 1/M of the rows reach, then 1/M² …
    """
    upper = links / (links - 1)
    return int(rows * (4 * (2 * links + upper) + 4 + 8))


def _ivf_bytes(parts: IvfParts, rows: int, dimension: int) -> int:
    inner = parts.output or dimension
    code = math.ceil((parts.parts if parts.parts else inner) * parts.bits / 8)
    size = rows * (code + _ID_BYTES) + parts.lists * (4 * inner + 8)
    if parts.links:
        size += _graph_bytes(parts.lists, parts.links)
    if parts.parts:
        size += 4 * inner * 2**parts.bits
    if parts.transform:
        spare = dimension if parts.transform.startswith("PCA") else 0  # PCA keeps all components beside those it uses
        size += 4 * dimension * (inner + spare)
    return size
