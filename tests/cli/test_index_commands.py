"""`index build`, `info`, `verify` and `encode` with each of their options, and with wrong usage."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm2comp
from llm2comp.errors import ModelFolderError
from tests.word_encoder import WORDS

pytestmark = pytest.mark.usefixtures("stand_in")


@pytest.fixture
def corpus(tmp_path: Path, write_lines: Callable[..., Path]) -> Path:
    draw = np.random.default_rng(0)
    return write_lines(
        tmp_path / "corpus.jsonl",
        [{"_id": f"d{row}", "text": " ".join(draw.choice(WORDS, 6)), "year": 2000 + row} for row in range(60)],
    )


@pytest.fixture
def build(tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any]) -> Callable[..., Path]:
    """Builds an index with the options and returns its folder."""

    def run(*options: object) -> Path:
        done = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--overwrite", *options)
        assert done.code == 0, done.err
        return tmp_path / "idx"

    return run


def read_info(folder: Path, llm2comp_command: Callable[..., Any]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(llm2comp_command("index", "info", folder, "--json").out)
    return facts


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"type": ["Flat"], "asked_for": "auto", "store": "float32", "hybrid": False, "chunks": None}),
        (("--type", "flat", "--store", "float16"), {"type": ["Flat"], "asked_for": "flat", "store": "float16"}),
        (("--type", "hnsw", "--store", "int8"), {"type": ["HNSW16"], "store": "int8"}),
        (("-t", "ivf"), {"type": ["IVF1,SQfp16"]}),
        (("-t", "ivfpq"), {"type": ["OPQ8_32,IVF1,PQ8x4"]}),
        (("-t", "IVF4,SQ8"), {"type": ["IVF4,SQ8"], "asked_for": "IVF4,SQ8"}),
        (("--hybrid",), {"hybrid": True}),
        (("--device", "cpu", "--on-error", "skip"), {"documents": 60, "rows": 60, "dimension": 32, "commit": 1}),
    ],
)
def test_options_of_build_are_what_info_says(
    build: Callable[..., Path], llm2comp_command: Callable[..., Any], options: tuple[str, ...], expected: dict[str, Any]
) -> None:
    folder = build(*options)
    facts = read_info(folder, llm2comp_command)
    assert {name: facts[name] for name in expected} == expected
    assert facts["size"] == sum(path.stat().st_size for path in (folder / "segments").rglob("*") if path.is_file())
    assert json.loads(llm2comp_command("search", folder, "the moon", "-k", "1", "--json").out)
    assert llm2comp_command("index", "verify", folder).code == 0


def test_a_language_of_build_is_kept_and_changed(
    build: Callable[..., Path], corpus: Path, llm2comp_command: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("Stemmer", reason="needs the extra stem")
    folder = build("--hybrid", "--language", "english")
    assert read_info(folder, llm2comp_command)["language"] == "english"
    assert "english stems" in llm2comp_command("index", "info", folder).out
    for option, language in (("none", None), ("german", "german")):
        assert llm2comp_command("index", "merge", folder, "--language", option).code == 0
        assert read_info(folder, llm2comp_command)["language"] == language
    assert llm2comp_command("index", "merge", folder, "--no-hybrid").code == 0
    assert read_info(folder, llm2comp_command)["language"] is None
    other = "index", "build", corpus, "-o", tmp_path / "other", "--model", "no-such-model"
    refused = llm2comp_command(*other, "--hybrid", "--language", "klingon")
    assert refused.code == 1
    assert "language is 'klingon'" in refused.err, "before the model is looked for"
    assert llm2comp_command(*other, "--language", "english").code == 2, "without --hybrid"


def test_targets_of_build_are_kept_and_answered(
    build: Callable[..., Path], llm2comp_command: Callable[..., Any]
) -> None:
    folder = build("--memory", "4G", "--latency-ms", "250", "--recall", "0.9", "--k", "5")
    measured = read_info(folder, llm2comp_command)["measured"]
    assert measured["wishes"] == {"memory": 4_000_000_000, "latency_ms": 250.0, "recall": 0.9, "k": 5}
    assert measured["met"] is True
    assert "recall@5 1.000" in measured["reason"]
    out = llm2comp_command("index", "build", "--help").out
    assert {
        "--memory",
        "--latency-ms",
        "--recall",
        "--k",
        "--device",
        "--chunk-tokens",
        "--chunk-overlap",
        "--store",
        "--hybrid",
    } <= set(out.split())


def test_info_for_people(build: Callable[..., Path], llm2comp_command: Callable[..., Any]) -> None:
    folder = build("--type", "HNSW8", "--hybrid", "--recall", "0.9")
    rows = dict(re.findall(r"(?m)^(.{12}) (.*)$", llm2comp_command("index", "info", folder).out))
    texts = {name.strip(): text for name, text in rows.items()}
    assert texts["documents"] == "60 in 1 segment"
    assert texts["dimension"] == "32, stored as float32"
    assert texts["type"] == "HNSW8 of 60 rows"
    assert texts["asked for"] == "type HNSW8, recall@10 0.9, at most 10 ms (the default) per query, any memory"
    assert texts["words"] == "a BM25 index, for --mode bm25 and hybrid"
    assert re.fullmatch(r"[\d.]+ kB to search, estimated", texts["memory"])
    assert re.fullmatch(r"[\d.]+ kB", texts["size"])
    assert texts["fingerprint"] == "words-32"
    assert re.fullmatch(r"1, by llm2comp [\w.]+, faiss [\d.]+, numpy [\d.]+, python [\d.]+", texts["commit"])
    assert re.fullmatch(r"recall@10 (1.000|0.\d{3})", re.search(r"recall@10 [\d.]{5}", texts["measured"])[0])  # type: ignore[index]
    assert texts["queries"] == "32 passages of 4 to 12 words from the documents, encoded as queries"
    assert re.fullmatch(r"[\d.]+ ms per query for comparing all vectors \(median\)", texts["exact"])
    llm2comp_command("index", "delete", folder, "d3", "d5")
    assert re.search(r"(?m)^type +HNSW8 of 60 rows, 2 of them deleted$", llm2comp_command("index", "info", folder).out)


def test_info_names_the_types_of_columns(llm2comp_command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,text,year,zip,price\na,bread,1999,007,1.5\nb,rain,2001,123,2\n")
    (tmp_path / "d.csv").write_text("id,text\nc,snow\n")
    llm2comp_command("index", "build", tmp_path / "c.csv", tmp_path / "d.csv", "-o", tmp_path / "idx")
    assert [source.get("columns") for source in read_info(tmp_path / "idx", llm2comp_command)["sources"]] == [
        {"year": "number", "zip": "text", "price": "number"},
        None,
    ]
    out = llm2comp_command("index", "info", tmp_path / "idx").out
    assert re.search(r"(?m)^columns +c\.csv: number: year, price; text: zip$", out)


def test_info_of_one_row(llm2comp_command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,text\na,bread\n")
    llm2comp_command("index", "build", tmp_path / "c.csv", "-o", tmp_path / "idx")
    out = llm2comp_command("index", "info", tmp_path / "idx").out
    assert re.search(r"(?m)^documents +1 in 1 segment$", out)
    assert re.search(r"(?m)^type +Flat of 1 row$", out)


def test_info_of_an_index_that_all_was_deleted_from(
    build: Callable[..., Path], llm2comp_command: Callable[..., Any], tmp_path: Path
) -> None:
    folder = build()
    llm2comp_command("index", "delete", folder, *(f"d{row}" for row in range(60)))
    run = llm2comp_command("index", "info", folder)
    assert run.code == 0
    assert re.search(r"(?m)^documents +0 in 0 segments$", run.out)
    assert re.search(r"(?m)^type +none: empty$", run.out)
    drawn = llm2comp_command("index", "info", folder, "--plot", tmp_path / "curve.png")
    assert drawn.code == 1
    assert "nothing was measured that could be drawn" in drawn.err
    assert not (tmp_path / "curve.png").exists()


def test_the_curve_is_drawn(build: Callable[..., Path], llm2comp_command: Callable[..., Any], tmp_path: Path) -> None:
    folder = build("--type", "hnsw")
    run = llm2comp_command("index", "info", folder, "--plot", tmp_path / "curve.png", "--json")
    assert run.code == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    points = json.loads(run.out)["measured"]["points"]
    assert points
    assert all({"recall", "median_ms", "p99_ms", "effort"} <= set(point) for point in points)
    assert run.err == f"recall against latency: {tmp_path / 'curve.png'}\n"
    refused = llm2comp_command("index", "info", folder, "--plot", tmp_path / "none" / "curve.png")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "curve.png" in refused.err


def test_types_that_were_not_tried_are_measured_for_the_picture(
    build: Callable[..., Path], llm2comp_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm2comp_indexes.tuning import plot

    drawn: list[list[str]] = []
    monkeypatch.setattr(
        plot, "plot_curve", lambda report, path, others=(): drawn.append([one.type.factory for one in others])
    )
    folder = build()
    run = llm2comp_command("index", "info", folder, "--plot", tmp_path / "curve.png")
    assert run.code == 0
    assert re.search(r"(?m)^type +Flat of 60 rows$", run.out)
    assert drawn == [[], ["IVF1,SQfp16", "HNSW16", "HNSW32", "IVF1,SQ8", "IVF1,SQ4"]]
    assert llm2comp_command("index", "verify", folder).code == 0
    drawn.clear()
    llm2comp_command("index", "info", build("--type", "hnsw"), "--plot", tmp_path / "curve.png")
    assert drawn == [[]]


def test_verify_names_the_file(build: Callable[..., Path], llm2comp_command: Callable[..., Any]) -> None:
    folder = build("--hybrid")
    whole = llm2comp_command("index", "verify", folder)
    assert re.fullmatch(rf"{folder}: whole: 60 documents, [\d.]+ kB, every checksum matches\n", whole.out)
    path = folder / "segments" / "000001" / "bm25" / "lengths.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    run = llm2comp_command("index", "verify", folder)
    assert (run.code, run.out, run.err.count("\n")) == (1, "", 1)
    assert f"{path}: altered" in run.err


def test_vectors_made_elsewhere(tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any]) -> None:
    model = llm2comp.load()
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    np.save(tmp_path / "v.npy", 3 * model.encode_document(texts))
    np.save(tmp_path / "q.npy", model.encode_query(["the moon", "bread"]))
    (tmp_path / "ids.txt").write_text("".join(f"d{row}\n" for row in range(60)))
    files = ("--vectors", tmp_path / "v.npy", "--ids", tmp_path / "ids.txt", "--query-vectors", tmp_path / "q.npy")
    bare = llm2comp_command("index", "build", *files, "-o", tmp_path / "bare")
    assert bare.code == 0
    assert bare.out.splitlines()[-1].endswith('"your question" --model MODEL')
    run = llm2comp_command("search", tmp_path / "bare", "the moon")
    assert run.code == 1
    assert "its vectors were made elsewhere, by a model it does not know; name the model (--model)" in run.err
    assert llm2comp_command("index", "build", corpus, *files, "-o", tmp_path / "texts").code == 0
    llm2comp_command("index", "build", corpus, "-o", tmp_path / "encoded")
    expected, hits = (
        json.loads(llm2comp_command("search", tmp_path / name, "the moon", "--json", "-m", "words").out)
        for name in ("encoded", "texts")
    )
    assert [hit["id"] for hit in hits] == [hit["id"] for hit in expected]
    assert hits[0]["text"] == expected[0]["text"]


def test_shards_give_the_index_that_a_build_gives(
    tmp_path: Path, corpus: Path, build: Callable[..., Path], llm2comp_command: Callable[..., Any]
) -> None:
    for shard in ("1/2", "2/2"):
        run = llm2comp_command("encode", corpus, "--shard", shard, "-o", tmp_path / "shards")
        assert run.code == 0
        assert re.match(rf"shard {shard[0]} of 2: 30 of 60 documents, dimension 32, ", run.out)
        assert f"llm2comp index build --vectors {tmp_path / 'shards'} -o INDEX" in run.err
    assert llm2comp_command("index", "build", "--vectors", tmp_path / "shards", "-o", tmp_path / "joined").code == 0
    names = ("vectors.faiss", "documents.jsonl", "documents.ids", "metadata.arrow")
    whole = build()
    for name in names:
        assert (tmp_path / "joined" / "segments" / "000001" / name).read_bytes() == (
            whole / "segments" / "000001" / name
        ).read_bytes()


@pytest.mark.parametrize("missing", ["1/2", "2/2"])
def test_a_missing_shard_is_refused(
    tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any], missing: str
) -> None:
    llm2comp_command("encode", corpus, "--shard", {"1/2": "2/2", "2/2": "1/2"}[missing], "-o", tmp_path / "shards")
    run = llm2comp_command("index", "build", "--vectors", tmp_path / "shards", "-o", tmp_path / "idx")
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert missing in run.err
    assert not (tmp_path / "idx").exists()


WRONG_USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "no corpus": (("-o", "OUT"), "give at least one CORPUS, or --vectors"),
    "no output": (("CORPUS",), "Missing option '--output' / '-o'"),
    "no size": (
        ("CORPUS", "-o", "OUT", "--memory", "lots"),
        "memory is 'lots', expected a size such as 500M, 4G or 16GiB",
    ),
    "no share": (("CORPUS", "-o", "OUT", "--recall", "95"), "recall is 95.0, expected more than 0 and at most 1"),
    "no time": (("CORPUS", "-o", "OUT", "--latency-ms", "0"), "latency is 0.0 ms, expected more than 0"),
    "too many answers": (("CORPUS", "-o", "OUT", "--k", "1001"), "Invalid value for '--k'"),
    "no store": (("CORPUS", "-o", "OUT", "--store", "float8"), "'float8' is not one of"),
    "no device": (("CORPUS", "-o", "OUT", "--device", "tpu"), "'tpu' is not one of"),
    "overlap alone": (("CORPUS", "-o", "OUT", "--chunk-overlap", "3"), "chunk_overlap is 3 without chunk_tokens"),
    "ids alone": (("CORPUS", "-o", "OUT", "--ids", "ids.txt"), "--ids and --query-vectors go with --vectors"),
    "unknown option": (("CORPUS", "-o", "OUT", "--fast"), "No such option"),
}
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no such corpus": (("missing.jsonl", "-o", "OUT"), "missing.jsonl: no such file or folder"),
    "no known kind": (("notes.png", "-o", "OUT"), "notes.png: unknown kind of file; expected"),
    "no such type": (
        ("CORPUS", "-o", "OUT", "--type", "hnws"),
        "type is 'hnws', .*expected flat, hnsw, ivf, ivfpq or a FAISS factory string",
    ),
    "more lists than rows": (("CORPUS", "-o", "OUT", "--type", "IVF64,Flat"), "64 lists for 60 rows"),
    "too little memory": (
        ("CORPUS", "-o", "OUT", "--memory", "1K"),
        r"memory is 1 kB, too little for any index of 60 vectors .*allow at least \d+ bytes",
    ),
    "no such vectors": (
        ("--vectors", "v.npy", "--ids", "i.txt", "-o", "OUT"),
        "v.npy: no such folder and no such file",
    ),
    "vectors without ids": (
        ("--vectors", "CORPUS", "-o", "OUT"),
        r"give the id of each row, one a line \(--ids FILE\)",
    ),
    "output below a file": (("CORPUS", "-o", "CORPUS/idx"), "corpus.jsonl"),
    "a model that is none": (("CORPUS", "-o", "OUT", "--model", "nobody/nothing"), "nobody/nothing: no model"),
    "chunks without a tokenizer": (
        ("CORPUS", "-o", "OUT", "--chunk-tokens", "9"),
        "chunk_tokens needs a model with a fast tokenizer",
    ),
}


@pytest.fixture
def place(tmp_path: Path, corpus: Path) -> Callable[[tuple[str, ...]], list[str]]:
    return lambda arguments: [
        argument.replace("CORPUS", str(corpus)).replace("OUT", str(tmp_path / "out")) for argument in arguments
    ]


@pytest.mark.parametrize(("arguments", "words"), WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage_of_build(
    place: Callable[..., list[str]], tmp_path: Path, llm2comp_command: Callable[..., Any], arguments: Any, words: str
) -> None:
    run = llm2comp_command("index", "build", *place(arguments))
    assert (run.code, run.out) == (2, "")
    assert words in " ".join(run.err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl"}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_end_in_one_clear_line(
    place: Callable[..., list[str]],
    tmp_path: Path,
    llm2comp_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: Any,
    words: str,
) -> None:
    def load(name: str | None = None) -> Any:
        if name:
            raise ModelFolderError(f"{name}: no model")
        return stand_in()

    stand_in = llm2comp.load
    monkeypatch.setitem(vars(llm2comp), "load", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.png").write_text("")
    run = llm2comp_command("index", "build", *place(arguments))
    assert (run.code, run.out) == (1, "")
    assert re.fullmatch(rf"llm2comp: error: .*{words}.*\n", run.err), run.err
    with_blocks = {"more lists than rows", "too little memory"}
    kept = {"out"} if any(MISTAKES[name][0] == arguments for name in with_blocks) else set()
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl", "notes.png", *kept}, (
        "what was encoded may be kept, and is no index"
    )
    if kept:
        assert llm2comp_command("index", "info", tmp_path / "out").code == 1


@pytest.mark.parametrize("command", [("index", "info"), ("index", "verify"), ("index", "merge"), ("search",)])
def test_no_index_there(tmp_path: Path, llm2comp_command: Callable[..., Any], command: tuple[str, ...]) -> None:
    (tmp_path / "other").mkdir()
    for folder, words in ((tmp_path / "none", "no such index folder"), (tmp_path / "other", "holds no index")):
        run = llm2comp_command(*command, folder, *(["a question"] if command == ("search",) else []))
        assert (run.code, run.out, run.err.count("\n")) == (1, "", 1)
        assert f"{folder}: {words}" in run.err
        assert "llm2comp index build" in run.err
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("shard", ["3/2", "0/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_cannot_be_is_wrong_usage(
    tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any], shard: str
) -> None:
    run = llm2comp_command("encode", corpus, f"--shard={shard}", "-o", tmp_path / "shards")
    assert (run.code, run.out) == (2, "")
    assert shard in run.err
    assert not (tmp_path / "shards").exists()


def test_a_second_build_of_another_corpus_says_that_it_begins_anew(
    tmp_path: Path, corpus: Path, write_lines: Callable[..., Path], llm2comp_command: Callable[..., Any]
) -> None:
    """Files of an interrupted build are replaced by the build of another corpus."""
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--type", "IVF64,Flat").code == 1
    other = write_lines(tmp_path / "other.jsonl", [{"_id": "a", "text": "moon"}])
    assert llm2comp_command("index", "build", other, "-o", tmp_path / "idx").code == 0
    assert read_info(tmp_path / "idx", llm2comp_command)["documents"] == 1
