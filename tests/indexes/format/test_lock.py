"""One writer at a time: the error names it, a dead one blocks nobody, readers never wait."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import add_documents, build_index, delete_documents, merge_index, open_index, verify_index
from llm2comp_indexes.format.lock import sole_writer
from tests.indexes.live import answers, make_documents
from tests.paths import ROOT
from tests.word_encoder import WordEncoder

HOLD = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from llm2comp_indexes.format.lock import sole_writer
with sole_writer(Path({folder!r})):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process that holds the index's lock."""
    script = HOLD.format(path=[str(ROOT), str(ROOT / "indexes")], folder=str(folder))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def writers(
    index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> dict[str, Callable[[], object]]:
    new = write_corpus(make_documents([50]), "new.jsonl")
    return {
        "add": lambda: add_documents(index_folder, [new], model=encoder),
        "delete": lambda: delete_documents(index_folder, ["d0"]),
        "merge": lambda: merge_index(index_folder),
        "build": lambda: build_index([new], index_folder, model=encoder, overwrite=True),
    }


@pytest.mark.parametrize("name", ["add", "delete", "merge", "build"])
def test_a_second_writer_is_refused_with_the_id_of_the_first(
    index_folder: Path, writers: dict[str, Callable[[], object]], name: str
) -> None:
    before = (index_folder / "manifest.json").read_bytes()
    with (
        holder(index_folder) as process,
        pytest.raises(IndexFolderError, match=rf"being written by process {process.pid}; wait for it"),
    ):
        writers[name]()
    assert (index_folder / "manifest.json").read_bytes() == before


def test_the_lock_of_a_process_that_was_killed_is_taken_over(
    index_folder: Path, writers: dict[str, Callable[[], object]]
) -> None:
    with holder(index_folder) as process:
        process.kill()
        process.wait(30)
        assert (index_folder / "LOCK.pid").read_text() == f"{process.pid} {platform.node()}\n"
        for write in writers.values():
            write()
    assert verify_index(index_folder).documents == 1


def test_readers_never_wait(index_folder: Path, encoder: WordEncoder) -> None:
    with holder(index_folder):
        assert all(answers(index_folder, encoder))
        assert verify_index(index_folder).documents == 5


def test_a_second_writer_in_the_same_process_is_refused_too(
    index_folder: Path, writers: dict[str, Callable[[], object]]
) -> None:
    refused: list[str] = []

    def write() -> None:
        try:
            writers["delete"]()
        except IndexFolderError as error:
            refused.append(str(error))

    with sole_writer(index_folder):
        thread = Thread(target=write)
        thread.start()
        thread.join()
    assert f"being written by process {os.getpid()};" in refused[0]
    writers["delete"]()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("4711 another.host", r"process 4711 on another\.host;"),
        (f"4194304999 {platform.node()}", r"another process;"),
        ("", "another process;"),
        ("soon", "another process;"),
    ],
)
def test_an_owner_that_says_something_else(
    index_folder: Path, writers: dict[str, Callable[[], object]], told: str, words: str
) -> None:
    with holder(index_folder):
        (index_folder / "LOCK.pid").write_text(told)
        with pytest.raises(IndexFolderError, match=f"being written by {words}"):
            writers["delete"]()


def test_an_owner_that_has_ended_while_its_child_goes_on(
    index_folder: Path, writers: dict[str, Callable[[], object]]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    with holder(index_folder):
        (index_folder / "LOCK.pid").write_text(f"{ended.pid} {platform.node()}\n")
        with pytest.raises(IndexFolderError, match=rf"process {ended.pid} \(not visible from here"):
            writers["delete"]()


def test_a_lock_that_leads_elsewhere_is_not_followed(
    index_folder: Path, tmp_path: Path, writers: dict[str, Callable[[], object]]
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("all of it")
    (index_folder / "LOCK.pid").unlink()
    (index_folder / "LOCK.pid").symlink_to(precious)
    writers["delete"]()
    (index_folder / "LOCK").unlink()
    (index_folder / "LOCK").symlink_to(precious)
    with pytest.raises(OSError, match="LOCK"):
        writers["merge"]()
    assert precious.read_text() == "all of it"


BUILD = """
import sys
sys.path[:0] = {path!r}
from llm2comp.errors import IndexFolderError
from llm2comp_indexes import build_index
from tests.word_encoder import WordEncoder
class Slow(WordEncoder):
    def encode_document(self, inputs, /, *, show_progress_bar=False):
        print("encoding", flush=True)
        sys.stdin.readline()
        return super().encode_document(inputs)
try:
    build_index([{corpus!r}], {folder!r}, model=Slow())
except IndexFolderError as error:
    print(error)
"""


def test_of_two_builds_into_one_new_folder_the_second_is_refused(
    tmp_path: Path, corpus: Path, encoder: WordEncoder
) -> None:
    script = BUILD.format(
        path=[str(ROOT), str(ROOT / "indexes")], corpus=str(corpus), folder=str(tmp_path / "new" / "idx")
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [
        process.stdout.readline() if process.stdout else "" for process in started
    ]  # the first waits in its encoder, the other has its answer
    winner = said.index("encoding\n")
    assert f"being written by process {started[winner].pid};" in said[1 - winner]
    for process in started:
        process.communicate("\n", timeout=60)
    assert verify_index(tmp_path / "new" / "idx").documents == 5
    assert len(open_index(tmp_path / "new" / "idx", model=encoder)) == 5
