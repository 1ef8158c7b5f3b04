"""Reading, encoding and joining without a cluster: what Ray hands on is done here in one process, in any order."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes import IndexOptions, encode_dataset, encode_on_ray, encode_shard
from llm2comp_indexes.builder.corpora import find_sources
from llm2comp_indexes.distributed.actor import BlockEncoder
from llm2comp_indexes.distributed.blocks import Block, Reading, ReadTask, cut_into_tasks, read_rows_as_blocks, read_task
from llm2comp_indexes.distributed.job import Job, open_parts
from llm2comp_indexes.distributed.joining import JoinedParts, ordered_parts
from llm2comp_indexes.distributed.outputs import MadeWith, write_parquet, write_whole_shard
from llm2comp_indexes.distributed.parts import list_parts
from llm2comp_indexes.progress import silent
from tests.indexes.distributed.made_corpus import write_corpus
from tests.word_encoder import WordEncoder

TOKENS = 100


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> WordEncoder:
    """The model that actors load in this process."""
    encoder = WordEncoder()
    monkeypatch.setattr("llm2comp_indexes.distributed.actor.load_encoder", lambda *_: (encoder, None))
    return encoder


def make_reading(*corpora: Path) -> Reading:
    layout = TableFormat()
    return Reading(corpora, find_sources(corpora, layout=layout), "raise", layout)


def make_job(folder: Path, model: WordEncoder, options: IndexOptions | None = None) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    token = open_parts(folder, {"kind": "test"})
    return Job(
        str(folder), token, None, model.fingerprint, model.dimension, options or IndexOptions(), EncoderOptions()
    )


def read_all(tasks: Sequence[ReadTask], reading: Reading) -> Iterator[Block]:
    for task in tasks:
        yield from read_task(task, reading, TOKENS)


def run(job: Job, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Hands the blocks to an actor, in another order."""
    actor = BlockEncoder(job)
    shuffled = random.Random(3).sample(list(blocks), len(blocks))
    return [actor(pa.table(block.to_row())).to_pylist()[0] for block in shuffled]


@pytest.mark.parametrize("chunk_tokens", [None, 5])
def test_equals_one_process(tmp_path: Path, model: WordEncoder, chunk_tokens: int | None) -> None:
    if chunk_tokens:
        model.tokenizer = _Tokenizer()
    options = IndexOptions(chunk_tokens=chunk_tokens, chunk_at="tokens" if chunk_tokens else "sentences")
    corpus = write_corpus(tmp_path / "corpus")
    encode_shard(corpus, tmp_path / "plain", model=model, options=options)
    reading = make_reading(corpus)
    tasks = cut_into_tasks(reading, task_bytes=1)
    assert len(tasks) == 4
    job = make_job(tmp_path / "parts", model, options)
    records = run(job, list(read_all(tasks, reading)))
    joined = JoinedParts(ordered_parts(tmp_path / "parts", tasks), model.dimension, pytest.fail)
    made_with = MadeWith(None, model.fingerprint, model.dimension, EncoderOptions(), options)
    written = write_whole_shard(
        tmp_path / "ray" / "shard-1-of-1", joined, made_with, reading.sources, silent, overwrite=False
    )
    one, other = (
        json.loads((tmp_path / name / "shard-1-of-1" / "shard.json").read_text()) for name in ("plain", "ray")
    )
    assert one == other  # with the checksums of all files, and of the corpus
    assert written.documents == 240
    assert sum(json.loads(record["facts"])["empty"] for record in records) == 4


def test_blocks_of_earlier_runs_are_not_encoded_again(tmp_path: Path, model: WordEncoder) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    reading = make_reading(corpus)
    tasks = cut_into_tasks(reading, task_bytes=1)
    blocks = list(read_all(tasks, reading))
    job = make_job(tmp_path / "parts", model)
    first = run(job, blocks[: len(blocks) // 2])
    done = model.documents
    assert sum(record["encoded"] for record in first) == done > 0
    second = run(job, blocks)
    assert sum(record["encoded"] for record in second) == 240 - done
    assert model.documents == 240
    assert run(job, blocks)[0]["encoded"] == 0


def test_a_block_whose_documents_changed_is_encoded_again(tmp_path: Path, model: WordEncoder) -> None:
    corpus = write_corpus(tmp_path / "corpus", files=1)
    reading = make_reading(corpus)
    [task] = cut_into_tasks(reading)
    job = make_job(tmp_path / "parts", model)
    run(job, list(read_task(task, reading, TOKENS)))
    path = corpus / "part0.jsonl"
    path.write_text(path.read_text().replace('"d0-59"', '"new"'))
    records = run(job, list(read_task(task, reading, TOKENS)))
    changed = [record for record in records if record["encoded"]]
    assert len(changed) == 1
    assert "new" in changed[0]["ids"]


def test_a_missing_part_is_named_before_anything_is_joined(tmp_path: Path, model: WordEncoder) -> None:
    reading = make_reading(write_corpus(tmp_path / "corpus"))
    tasks = cut_into_tasks(reading, task_bytes=1)
    run(make_job(tmp_path / "parts", model), list(read_all(tasks, reading)))
    next(list_parts(tmp_path / "parts")).unlink()
    with pytest.raises(IndexFolderError, match=r"000000/000000\.parquet: missing or unreadable; run this again"):
        ordered_parts(tmp_path / "parts", tasks)


def test_another_model_on_a_host(tmp_path: Path, model: WordEncoder) -> None:
    reading = make_reading(write_corpus(tmp_path / "corpus", files=1))
    job = make_job(tmp_path / "parts", WordEncoder(fingerprint="another"))
    with pytest.raises(SettingsError, match=r"has the fingerprint words-32 on the host .*, expected another-32"):
        run(job, list(read_all(cut_into_tasks(reading), reading)))


@pytest.mark.parametrize("seen", ["nothing", "another"])
def test_a_host_that_sees_another_folder(tmp_path: Path, model: WordEncoder, seen: str) -> None:
    reading = make_reading(write_corpus(tmp_path / "corpus", files=1))
    job = make_job(tmp_path / "parts", model)
    path = tmp_path / "parts" / "job.json"
    path.unlink()
    if seen == "another":
        open_parts(tmp_path / "parts", {"kind": "test"})
    with pytest.raises(IndexFolderError, match=r"job\.json: .* name one that all of them share with -o"):
        run(job, list(read_all(cut_into_tasks(reading), reading)))


def test_parts_of_another_run_are_kept(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    token = open_parts(tmp_path / "parts", {"kind": "corpora", "fingerprint": "a"})
    assert open_parts(tmp_path / "parts", {"kind": "corpora", "fingerprint": "a"}) == token
    with pytest.raises(IndexFolderError, match=r"parts that an unfinished run made .* --overwrite it"):
        open_parts(tmp_path / "parts", {"kind": "corpora", "fingerprint": "b"})


@pytest.mark.parametrize("kind", ["rows", "texts"])
def test_files_that_come_or_go_meanwhile(tmp_path: Path, kind: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    if kind == "texts":
        for file in list(corpus.iterdir()):
            file.rename(file.with_suffix(".txt"))
    reading = make_reading(corpus)
    tasks = cut_into_tasks(reading, task_bytes=1)
    name, text = ("part9.jsonl", '{"text": "late"}\n') if kind == "rows" else ("part9.txt", "late")
    (corpus / name).write_text(text)
    with pytest.raises(CorpusError, match="5 files, expected 4 as when reading began"):
        list(read_all(tasks, reading))


def test_a_folder_of_texts_equals_one_process(tmp_path: Path, model: WordEncoder) -> None:
    for number in range(30):
        path = tmp_path / "corpus" / f"folder{number % 3}" / f"note{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Title {number}\n\nbread and moon {number}\n")
    encode_shard(tmp_path / "corpus", tmp_path / "plain", model=model)
    reading = make_reading(tmp_path / "corpus")
    tasks = cut_into_tasks(reading, task_bytes=100)
    assert len(tasks) > 3
    run(make_job(tmp_path / "parts", model), list(read_all(tasks, reading)))
    joined = JoinedParts(ordered_parts(tmp_path / "parts", tasks), model.dimension, pytest.fail)
    rows = [row for block in joined.blocks() for row in block.rows]
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    shard = json.loads((tmp_path / "plain" / "shard-1-of-1" / "shard.json").read_text())
    assert (joined.documents, joined.sha256) == (30, shard["corpus"]["sha256"])


def test_rows_of_a_dataset_in_other_blocks(tmp_path: Path, model: WordEncoder) -> None:
    table = pa.table({"id": [f"d{row}" for row in range(100)], "text": [f"bread moon {row}" for row in range(100)]})
    [source] = make_rows_source()
    job = make_job(tmp_path / "parts", model)
    run(job, list(read_rows_as_blocks(table.slice(0, 60), source, "raise", 50)))
    assert model.documents == 60
    from llm2comp_indexes.distributed.dataset import _write_done

    again = job.__class__(*(getattr(job, name) for name in job.__slots__[:-1]), done=_write_done(tmp_path / "parts"))
    run(again, list(read_rows_as_blocks(table, source, "raise", 70)))
    assert model.documents == 100
    joined = JoinedParts(list_parts(tmp_path / "parts"), model.dimension, None)
    ids = [row.id for block in joined.blocks() for row in block.rows]
    assert sorted(ids) == sorted(f"d{row}" for row in range(100))


def test_equal_rows_of_a_dataset_without_ids(tmp_path: Path, model: WordEncoder) -> None:
    table = pa.table({"text": ["same", "same", "other"]})
    [source] = make_rows_source()
    job = make_job(tmp_path / "parts", model)
    run(job, list(read_rows_as_blocks(table, source, "raise", 1)))
    [block] = JoinedParts(list_parts(tmp_path / "parts"), model.dimension, None).blocks()
    assert sorted(row.text for row in block.rows) == ["other", "same"]


def test_parquet(tmp_path: Path, model: WordEncoder) -> None:
    from pyarrow import parquet

    reading = make_reading(write_corpus(tmp_path / "corpus"))
    tasks = cut_into_tasks(reading)
    run(make_job(tmp_path / "parts", model), list(read_all(tasks, reading)))
    made_with = MadeWith(None, model.fingerprint, model.dimension, EncoderOptions(), IndexOptions(store="float16"))
    messages = SkipCounter(lambda _: None)
    parts = list(ordered_parts(tmp_path / "parts", tasks))
    written = write_parquet(tmp_path, parts, JoinedParts(parts, model.dimension, messages), made_with, silent)
    table = parquet.read_table(tmp_path / "vectors-00000.parquet")
    assert table.column_names == ["id", "vector", "metadata"]
    assert table.num_rows == written.rows == 240
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: halffloat>[32]"
    years = table.column("metadata").combine_chunks().field("year").to_pylist()
    assert set(years) == {None, *range(2000, 2007)}
    description = json.loads((tmp_path / "vectors.json").read_text())
    assert description["rows"] == 240
    assert description["model"]["fingerprint"] == model.fingerprint
    assert list(description["files"]) == ["vectors-00000.parquet"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: encode_on_ray("-", path), "standard input cannot be read by the hosts"),
        (lambda path: encode_on_ray([{"text": "a"}], path), "rows in memory cannot be read by the hosts"),
        (lambda path: encode_on_ray("x.jsonl", path, model=WordEncoder()), "model is of type WordEncoder"),
        (lambda path: encode_on_ray("x.jsonl", path, format="npy"), "format is 'npy', expected shards or parquet"),
        (lambda path: encode_dataset([1], path), "dataset is of type list, expected a ray.data.Dataset"),
        (
            lambda path: encode_on_ray("x.jsonl", path, format="parquet", options=IndexOptions(store="int8")),
            "store int8 cannot be written to Parquet",
        ),
    ],
)
def test_wrong_arguments_are_found_before_a_cluster_starts(tmp_path: Path, call: Any, message: str) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.raises(SettingsError, match=message):
        call(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2comp.errors import ClusterError

    monkeypatch.setattr("llm2comp_indexes.distributed.request.find_spec", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ClusterError, match=r'pip install "llm2comp\[ray\]"'):
        encode_on_ray("x.jsonl", tmp_path / "out")


def make_rows_source() -> list[Any]:
    from llm2comp.corpus.rows import Rows

    return find_sources([Rows([])], layout=TableFormat())


class _Tokenizer:
    """Splits at white space; enough of a fast tokenizer to make chunks."""

    is_fast = True

    def __call__(self, text: str, **_: Any) -> dict[str, list[tuple[int, int]]]:
        places, start = [], 0
        for word in text.split():
            start = text.index(word, start)
            places.append((start, start + len(word)))
            start += len(word)
        return {"offset_mapping": places}
