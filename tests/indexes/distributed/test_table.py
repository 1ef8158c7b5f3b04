"""A table that a run on a cluster fills is the one that an index of the same corpus is pushed to.

What Ray hands on is handed on here in one process, in any order, to actors that were pickled as Ray does it.
"""

import json
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llm2comp.errors import CorpusError, IndexFolderError, SettingsError, StoreError
from llm2comp_indexes import (
    Hit,
    IndexOptions,
    SearchOptions,
    VectorFiles,
    build_from_vectors,
    build_index,
    encode_dataset,
    encode_on_ray,
    open_store_index,
    push_index,
)
from llm2comp_indexes.distributed import dataset as datasets
from llm2comp_indexes.distributed import encode as encoding
from llm2comp_indexes.distributed import report as reports
from llm2comp_indexes.distributed import run as running
from llm2comp_indexes.distributed.actor import BlockEncoder
from llm2comp_indexes.distributed.blocks import cut_into_tasks, read_rows_as_blocks, read_task
from llm2comp_indexes.distributed.capacity import ActorPlan
from llm2comp_indexes.distributed.parts import PartFacts
from llm2comp_indexes.distributed.pipeline import Record
from llm2comp_indexes.distributed.table import Table
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.postgres import PostgresStore
from llm2comp_indexes.stores.url import parse_store_url
from tests.indexes.distributed.made_corpus import write_corpus
from tests.indexes.distributed.test_encoding import _Tokenizer
from tests.indexes.stores.conftest import STORES, new_url
from tests.indexes.stores.test_push import contents
from tests.postgres_server import PASSWORD, PostgresServer, running_postgres
from tests.word_encoder import WordEncoder

pytest.importorskip("ray.data", reason="needs the extra ray")
_numbers = count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def tables(postgres: PostgresServer) -> Callable[[], str]:
    """Function that gives the address of a new table in PostgreSQL."""
    return lambda: postgres.url(table=f"rows{next(_numbers)}")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> WordEncoder:
    """The model of all processes; blocks go from tasks to two actors in another order, without a cluster."""
    encoder = WordEncoder()
    for module in ("distributed.actor", "distributed.run", "builder.encode_shard"):
        monkeypatch.setattr(f"llm2comp_indexes.{module}.load_encoder", lambda *_: (encoder, None))
    monkeypatch.setattr(running, "connected", lambda *_, **__: nullcontext())
    monkeypatch.setattr(running, "free_nodes", lambda _: [])
    monkeypatch.setattr(running, "spilled_bytes", lambda _: 0)
    monkeypatch.setattr(running, "plan_actors", lambda *_: ActorPlan(2, 1, 0, 1, None))
    monkeypatch.setattr(running, "encode_blocks", _encode)
    monkeypatch.setattr(encoding, "cut_into_tasks", lambda reading: cut_into_tasks(reading, task_bytes=1))
    monkeypatch.setattr(
        encoding, "blocks_of_corpora", lambda tasks, reading, _: [b for t in tasks for b in read_task(t, reading, 100)]
    )
    monkeypatch.setattr(
        datasets, "blocks_of_dataset", lambda data, source, on_error, _: list(
            read_rows_as_blocks(data.table, source, on_error, 100)
        )
    )  # fmt: skip
    return encoder


def _encode(blocks: Any, job: Any, plan: ActorPlan, _: int) -> Iterator[Record]:
    actors = [BlockEncoder(pickle.loads(pickle.dumps(job))) for _ in range(plan.actors)]
    for number, block in enumerate(random.Random(3).sample(blocks, len(blocks))):
        [row] = actors[number % len(actors)](pa.table(block.to_row())).to_pylist()
        yield Record(**{**row, "facts": PartFacts.from_json(row["facts"])})


class _Dataset:
    """Enough of a dataset of Ray for what hands its rows on here."""

    def __init__(self, **columns: Any) -> None:
        self.table, self.context = pa.table(columns), None

    def map_batches(self) -> None: ...


def header(url: str) -> Any:
    store = open_store(url)
    try:
        return store.read_header()
    finally:
        store.close()


def check_as_pushed(url: str, index: Path, other: str, model: WordEncoder) -> None:
    """Checks that the table is that of the pushed index: rows, header, and what questions find."""
    push_index(index, other)
    assert contents(url) == contents(other)
    assert header(url) == header(other)
    questions = ["bread moon", "the same text everywhere", "river"]
    found = []
    for address in (url, other):
        with open_store_index(address, model=model) as opened:
            for where in (None, "year >= 2003", "not year == 2001"):
                options = SearchOptions(where=where)
                found.append([_clear(hits) for hits in opened.search(questions, options=options)])
    assert found[:3] == found[3:]
    assert all(hits for answers in found for hits in answers)


def _clear(hits: Sequence[Hit]) -> tuple[list[float], set[str]]:
    """The scores, and the hits above the last one: among equals at the end, each table has its own."""
    above = {str(tuple(hit._replace(score=round(hit.score, 4)))) for hit in hits if hit.score > hits[-1].score + 1e-4}
    return [round(hit.score, 4) for hit in hits], above


@pytest.fixture(params=STORES)
def two_tables(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    url = new_url(request, tmp_path)
    return url, new_url(request, tmp_path) if "host=" in url else url.replace("/store", "/other")


def test_a_table_of_each_store(two_tables: tuple[str, str], tmp_path: Path, model: WordEncoder) -> None:
    url, other = two_tables
    corpus = write_corpus(tmp_path / "corpus")
    report = encode_on_ray(corpus, tmp_path / "out", to=url)
    pushed = report.pushed
    assert pushed is not None
    assert (report.documents, pushed.rows, pushed.others) == (240, 240, 0)
    by_actors = url.startswith("postgresql")
    assert pushed.added == (12 if by_actors else 240)  # equal rows, which get numbers where the blocks are joined
    assert pushed.changed == 0
    build_from_vectors(VectorFiles([tmp_path / "out"]), tmp_path / "idx", model=model)
    check_as_pushed(url, tmp_path / "idx", other, model)
    before, encoded = contents(url), model.documents
    again = encode_on_ray(corpus, tmp_path / "out", to=url)
    assert again.pushed is not None
    assert (again.actors, again.pushed.added, again.pushed.changed, again.pushed.indexed) == (0, 0, 0, False)
    assert model.documents == encoded
    assert contents(url) == before


@pytest.mark.parametrize("chunk_tokens", [None, 5])
def test_an_id_that_occurs_twice_is_left_out(
    tables: Callable[[], str], tmp_path: Path, model: WordEncoder, chunk_tokens: int | None
) -> None:
    model.tokenizer = _Tokenizer()
    options = IndexOptions(chunk_tokens=chunk_tokens, chunk_at="tokens" if chunk_tokens else "sentences")
    corpus, url = write_corpus(tmp_path / "corpus"), tables()
    with (corpus / "part3.jsonl").open("a") as file:
        file.write(
            json.dumps({"id": "d0-1", "text": "another text, of many words, and with the id of one before " * 9})
        )
    with pytest.raises(CorpusError, match='id "d0-1" occurs twice'):
        encode_on_ray(corpus, tmp_path / "out", to=url, options=options)
    messages: list[str] = []
    encode_on_ray(
        corpus, tmp_path / "out", to=url, options=options, on_error="skip", on_skip=messages.append, sync=True
    )
    assert len(messages) == 1
    build_index([corpus], tmp_path / "idx", model=model, options=options, on_error="skip", on_skip=lambda _: None)
    check_as_pushed(url, tmp_path / "idx", tables(), model)


def test_chunks_of_ids_that_occur_twice_never_reach_the_table(
    tables: Callable[[], str], tmp_path: Path, model: WordEncoder
) -> None:
    model.tokenizer = _Tokenizer()
    options = IndexOptions(chunk_tokens=5, chunk_at="tokens")
    for name, text in (("a", "a short text"), ("b", "bread and moon " * 20)):
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / "corpus" / f"{name}.jsonl").write_text(json.dumps({"id": "one", "text": text}))
    url = tables()
    report = encode_on_ray(
        tmp_path / "corpus", tmp_path / "out", to=url, options=options, on_error="skip", on_skip=lambda _: None
    )
    assert report.pushed is not None
    assert (report.rows, report.pushed.others, len(contents(url))) == (1, 0, 1)


def test_the_network_is_gone_half_way(
    tables: Callable[[], str], tmp_path: Path, model: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, url, write, calls = write_corpus(tmp_path / "corpus"), tables(), PostgresStore.write, list[int]()

    def write_some(self: Any, parts: Any, *, new: bool = False) -> None:
        calls.append(1)
        if len(calls) in (4, 9, 10):
            raise StoreError("the connection was lost")
        write(self, parts, new=new)

    monkeypatch.setattr(PostgresStore, "write", write_some)
    with pytest.raises(StoreError, match="the connection was lost"):
        encode_on_ray(corpus, tmp_path / "out", to=url)
    assert len(calls) == 10  # the fourth was tried again
    assert len(contents(url)) > 0
    held = model.documents
    report = encode_on_ray(corpus, tmp_path / "out", to=url)
    assert report.encoded == 240 - held
    assert model.documents == 240
    build_index([corpus], tmp_path / "idx", model=model)
    check_as_pushed(url, tmp_path / "idx", tables(), model)


def test_vectors_of_an_earlier_run_reach_the_table(
    tables: Callable[[], str], tmp_path: Path, model: WordEncoder
) -> None:
    corpus, url, options = write_corpus(tmp_path / "corpus"), tables(), IndexOptions(store="float16")
    encode_on_ray(corpus, tmp_path / "out", options=options)
    report = encode_on_ray(corpus, tmp_path / "out", to=url, options=options)
    assert report.pushed is not None
    assert (report.encoded, report.pushed.added) == (0, 240)
    build_index([corpus], tmp_path / "idx", model=model, options=options)
    check_as_pushed(url, tmp_path / "idx", tables(), model)


def test_rows_that_the_corpus_does_not_have(tables: Callable[[], str], tmp_path: Path, model: WordEncoder) -> None:
    url = tables()
    encode_on_ray(write_corpus(tmp_path / "more", files=5), tmp_path / "out", to=url)
    corpus = write_corpus(tmp_path / "corpus", files=3)
    report = encode_on_ray(corpus, tmp_path / "less", to=url)
    assert report.pushed is not None
    assert report.pushed.others > 0
    assert report.pushed.deleted == 0
    again = encode_on_ray(corpus, tmp_path / "less", to=url, sync=True)
    assert again.pushed is not None
    assert (again.pushed.others, again.pushed.deleted) == (0, report.pushed.others)
    assert len(contents(url)) == report.rows


def test_a_dataset(
    tables: Callable[[], str], tmp_path: Path, model: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"d{row}" for row in range(100)]
    data, url = _Dataset(id=ids, text=[f"bread moon {row}" for row in range(100)]), tables()
    right = reports.push_shard
    monkeypatch.setattr(reports, "push_shard", _lost)
    with pytest.raises(StoreError, match="lost"):
        encode_dataset(data, tmp_path / "out", to=url)
    assert sorted(contents(url)) == sorted(ids)
    monkeypatch.setattr(reports, "push_shard", right)
    report = encode_dataset(data, tmp_path / "out", to=url)
    assert report.pushed is not None
    assert (report.documents, report.encoded, model.documents) == (100, 0, 100)
    assert (report.pushed.rows, report.pushed.added, report.pushed.changed) == (100, 0, 0)
    assert not (tmp_path / "out" / ".parts").exists()
    with pytest.raises(IndexFolderError, match="already holds finished vectors"):
        encode_dataset(data, tmp_path / "out", to=url)


def _lost(*_: Any, **__: Any) -> Any:
    raise StoreError("lost")


def test_what_does_not_fit_is_refused_before_anything_is_encoded(
    postgres: PostgresServer, tables: Callable[[], str], tmp_path: Path, model: WordEncoder
) -> None:
    corpus, url = write_corpus(tmp_path / "corpus"), tables()
    build_index([corpus], tmp_path / "idx", model=WordEncoder(fingerprint="others"))
    push_index(tmp_path / "idx", url)
    postgres.execute("CREATE TABLE IF NOT EXISTS foreign_table (id text)")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"to": url}, StoreError, "they do not mix; name another table"),
        ({"to": postgres.url(table="foreign_table")}, StoreError, "was not made by llm2comp, so it is left alone"),
        ({"to": postgres.url("nowhere", table="docs")}, StoreError, 'database "nowhere" does not exist'),
        ({"to": "mysql://host/db"}, SettingsError, "mysql:// is no store"),
        ({"to": tables(), "format": "parquet"}, SettingsError, "format parquet has no texts"),
        ({"to": tables(), "options": IndexOptions(store="int8")}, SettingsError, "store int8 is none that a table"),
        ({"sync": True}, SettingsError, "sync deletes rows from a table, and none is named"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message) as failure:
            encode_on_ray(corpus, tmp_path / "out", **arguments)
        assert "\n" not in str(failure.value)
        assert not (tmp_path / "out").exists()
    assert model.documents == 0


def test_ray_keeps_no_password(postgres: PostgresServer, tmp_path: Path) -> None:
    exporter = pytest.importorskip("ray.data._internal.metadata_exporter")
    from llm2comp.encoder_options import EncoderOptions
    from llm2comp_indexes.distributed.job import Job
    from llm2comp_indexes.distributed.table import table_header

    url = parse_store_url(postgres.url_over_network("postgres"))
    table = Table(url, table_header("f", None, 32, IndexOptions(), EncoderOptions()))
    job = Job(str(tmp_path), "token", None, "f", 32, IndexOptions(), EncoderOptions(), table)
    kept = exporter.sanitize_for_struct({"fn_constructor_kwargs": {"job": job}})
    assert str(url) in str(kept)
    for text in (str(kept), repr(job), str(table)):
        assert PASSWORD not in text
    assert pickle.loads(pickle.dumps(job)).table._url.address == url.address
