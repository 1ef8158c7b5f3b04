"""Index types: names and factory strings, default parameters, error messages, estimated memory."""

import sys

import faiss
import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes.structures.types import NAMES, IndexType, default_type, memory_bytes, new_index, parse_type
from tests.indexes.processes import run_python


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("Flat", "flat"),
        ("HNSW32", "hnsw"),
        ("HNSW16,Flat", "hnsw"),
        ("IVF10,Flat", "ivf"),
        ("IVF10,SQ8", "ivf"),
        ("IVF10_HNSW8,SQfp16", "ivf"),
        ("OPQ8_16,IVF10,PQ8x8", "ivf"),
        ("OPQ8,IVF10,PQ8", "ivf"),
        ("PCA16,IVF10,PQ8x4", "ivf"),
        ("IVF10,PQ8x4fs", "other"),
        ("SQ8", "other"),
        ("IDMap,Flat", "other"),
        ("HNSW16_SQ8", "other"),
        ("IVF10,Flat,RFlat", "other"),
    ],
)
def test_factory_strings_have_a_family_and_faiss_makes_them(text: str, family: str) -> None:
    kind = parse_type(text, rows=1000, dimension=32)
    assert kind.family == family
    index = new_index(kind, 32)
    assert index.d == 32
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 39, 100, 5_000, 10_000, 100_000, 1_000_000, 100_000_000])
@pytest.mark.parametrize("dimension", [1, 7, 32, 100, 256, 384, 768, 4096])
def test_names_have_parameters_that_faiss_takes_at_any_size(name: str, rows: int, dimension: int) -> None:
    kind = parse_type(name, rows=rows, dimension=dimension)
    assert kind == parse_type(kind.factory, rows=rows, dimension=dimension), (
        "a stored string is read back as the same type"
    )
    if rows <= 1_000_000:
        assert new_index(kind, dimension).d == dimension
    if name in ("ivf", "ivfpq"):
        assert kind.family == "ivf"
        assert 1 <= kind.ivf.lists <= max(1, rows / 39), "each centroid has the vectors FAISS asks for"
    if name == "ivfpq" and kind.ivf.bits == 8:
        assert rows >= 39 * 256


def test_lists_and_links_grow_with_the_rows() -> None:
    lists = [default_type("ivf", rows=rows, dimension=256).ivf.lists for rows in (10_000, 1_000_000, 100_000_000)]
    assert lists == [256, 4000, 40_000]  # bounded by training points, then 4 times the square root
    assert default_type("ivf", rows=1_000_000, dimension=256).ivf.links is None
    assert default_type("ivf", rows=100_000_000, dimension=256).ivf.links == 32
    assert [default_type("hnsw", rows=rows, dimension=256).links for rows in (1000, 1_000_000)] == [16, 32]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FAISS cannot make"),
        ("fast", "'fast'.*flat, hnsw, ivf, ivfpq or a FAISS factory string"),
        ("HNSW1", "two to 1,000 links"),
        ("IVF20_HNSW1,Flat", "two to 1,000 links"),
        ("HNSW5000_SQ8", "two to 1,000 links"),
        ("NSG1", "two to 1,000 links"),
        ("NSG0", "numbers of at least 1"),
        ("IVF0,Flat", "numbers of at least 1"),
        ("HNSW16,PQ16", "by inner product .it makes one by Euclidean distance"),
        ("PCA40,Flat", "40 dimensions out of 32"),
        ("ITQ40,SQ8", "40 dimensions out of 32"),
        ("OPQ7,PQ8", "32 dimensions in 7 parts"),
        ("IVF2000,Flat", "2,000 lists for 1,000 rows"),
        ("IVF4,PQ5", "FAISS cannot make"),
        ("LSH", "FAISS cannot make"),
        ("IVF99999999999,Flat", "numbers are beyond"),
        ("IVF70000(IVF70000,Flat),Flat", "numbers are beyond"),
        ("PCA8," * 100 + "Flat", "numbers are beyond"),
        ("Flat\x00,", "numbers are beyond"),
        ("PQ1x24", "tables have gigabytes"),
        ("IMI2x16,Flat", "tables have gigabytes"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        parse_type(text, rows=1000, dimension=32)
    assert "\n" not in str(caught.value)


_MEASURE = """
import sys, numpy as np
from pathlib import Path
import faiss
from llm2comp_indexes.format.vectors import StorageWriter, open_storage
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.structure import memory_bytes, open_structure, parse_type
faiss.omp_set_num_threads(1)
name, dimension, folder, step = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
rows = 30_000
if step == "build":
    vectors = np.random.default_rng(0).standard_normal((rows, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with StorageWriter(folder / "v", dimension, "float16") as writer:
        writer.append(vectors)
        writer.finish()
kind = parse_type(name, rows=rows, dimension=dimension)
storage = open_storage(folder / "v", rows=rows, dimension=dimension, store="float16")
if step == "build":
    if kind.family != "flat":
        build_structure(kind, storage, threads=1).save(folder / "i")
    sys.exit()

# Of the two files (a page mapped twice counts once) and of the heap, without libraries
def resident():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    total, ours = int(status["RssAnon"].split()[0]), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            ours = len(rest) > 4 and rest[4].startswith(str(folder))
        elif first == "Pss:" and ours:
            total += int(rest[0])
    return 1024 * total

from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.structures.structure import Effort
record = FileRecord((folder / "i").stat().st_size, "") if kind.family != "flat" else None
few = np.eye(100, dimension, dtype=np.float32)
small = faiss.index_factory(dimension, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
small.train(few), small.add(few), small.search(few, 1)  # what a first search loads is not the index's
before = resident()
structure = open_structure(folder / "i", kind, storage, record=record)
queries = np.random.default_rng(1).standard_normal((20 if kind.family != "hnsw" else 400, dimension), dtype=np.float32)
for query in queries:
    structure.search(query[None], 10, effort=Effort(nprobe=1 << 20, ef_search=400))
print(resident() - before, memory_bytes(kind, rows=rows, dimension=dimension, store="float16"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize("name", ["flat", "HNSW8", "IVF100,SQfp16", "IVF100,SQ8", "IVF100,Flat"])
def test_memory_is_estimated_to_10_percent(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("memory")
    for step in ("build", "measure"):
        output = run_python("-c", _MEASURE, name, 256, folder, step)
    measured, estimated = map(int, output.split())
    assert abs(measured - estimated) < 0.1 * estimated + (2 << 20), (
        "2 MiB: what a process takes on the side, beside an index of 8 to 30"
    )


def test_an_estimate_for_any_type() -> None:
    assert memory_bytes(IndexType("SQ8"), rows=1000, dimension=64, store="float32") == pytest.approx(64_000, rel=0.02)
    codes, ids = 8, 8  # bytes; FAISS's code size includes the number of the list, which is kept once per list
    assert memory_bytes(IndexType("IVF16,PQ16x4fs"), rows=100_000, dimension=64, store="float32") == pytest.approx(
        100_000 * (codes + ids), rel=0.02
    )


def test_a_type_is_checked_before_the_rows_are_known() -> None:
    for text in ("flat", "ivf", "IVF50000,SQ8", "HNSW16_SQ8"):
        parse_type(text, rows=None, dimension=64)
    for text in ("fast", "IVF4,PQ5", "NSG1", "IVF5000000,Flat"):
        with pytest.raises(SettingsError):
            parse_type(text, rows=None, dimension=64)
