"""kill -9 and a full disk at any moment: the last commit stays whole, and running again encodes nothing twice.

Real processes are killed before, or half way through, every call that changes the disk, and at random times from
outside.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import IndexOptions, build_index, open_index, verify_index
from llm2comp_indexes.format.manifest import read_manifest, read_previous
from llm2comp_indexes.format.segment import segment_folder
from tests.indexes.faults import Fault, FaultServer
from tests.word_encoder import WORDS, WordEncoder

OPTIONS = {"type": "hnsw", "hybrid": True}
TASKS = [
    *("build", "overwrite", "add", "delete", "merge", "restructure", "rebuild", "sync"),
    *("upsert", "eleventh", "eleventh upsert"),
]
BLOCK = 3  # documents, in the children


class Job(NamedTuple):
    """A change, and what it does when it is not disturbed.

    Attributes:
        task: Its name.
        arguments: Its arguments.
        before: The index before it; None: there is none.
        after: The index after it.
        texts: The texts that it encodes.
        gates: Number of its gates.
        writes: Number of its gates that write.
    """

    task: str
    arguments: dict[str, Any]
    before: Path | None
    after: Path
    texts: list[str]
    gates: int
    writes: int


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as started:
        yield started


def write_corpus(path: Path, rows: list[int], seed: int) -> Path:
    draw = random.Random(seed)
    documents = (
        {"_id": f"d{row}", "title": f"T{row}", "text": " ".join(draw.choices(WORDS, k=6)), "year": 2000 + row}
        for row in rows
    )
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


@pytest.fixture(scope="module")
def jobs(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Each change without faults; each starts from the result of the one before."""
    root = tmp_path_factory.mktemp("undisturbed")
    first = write_corpus(root / "first.jsonl", [*range(14)], seed=1)
    second = write_corpus(root / "second.jsonl", [3, 4, 5, *range(20, 28)], seed=2)
    arguments = {
        "build": {"corpus": str(first), "options": OPTIONS},
        "add": {"corpus": str(second)},
        "delete": {"ids": ["d1", "d21", "d4", "never there"]},
        "merge": {},
        "overwrite": {"corpus": str(second), "options": OPTIONS, "overwrite": True},
        "restructure": {"options": {"type": "IVF2,SQ8"}},
    }
    arguments["rebuild"] = {"options": {"type": "IVF2,SQ8"}}
    arguments["sync"] = {}
    eleventh = write_corpus(root / "eleventh.jsonl", [40], seed=3)
    arguments |= {
        "upsert": {"texts": {"d4": "bread", "new": "moon tides", **{f"v{row}": f"rain {row}" for row in range(4)}}},
        "eleventh": {"corpus": str(eleventh)},
        "eleventh upsert": {"texts": {"d4": "bread"}},
    }
    tasks = {"overwrite": "build", "restructure": "merge", "eleventh": "add", "eleventh upsert": "upsert"}
    ten = root / "ten"  # with ten segments of a row each
    jobs: dict[str, Job] = {}
    before: Path | None = None
    for name, options in arguments.items():
        task = tasks.get(name, name)
        if name == "upsert":
            copy(jobs["add"].after, ten)
            for row in range(10):
                server.run("upsert", ten, texts={f"u{row}": WORDS[row]})
        start = (
            ten
            if name.startswith("eleventh")
            else jobs["add"].after
            if name in (*tasks, "upsert", "rebuild")
            else before
        )
        if name == "sync":
            start = build_and_change_sources(root)
        counted = [
            server.run(task, copy(start, root / f"{name}-{kind}"), Fault(kind, 1 << 30), **options)
            for kind in ("kill", "full")
        ]
        assert [run.error for run in counted] == ["", ""]
        assert name != "sync" or counted[0].result == [6, 4, 2, 13, 5], "new, changed, renamed, unchanged, vanished"
        jobs[name] = Job(
            task, options, start, root / f"{name}-kill", counted[0].encoded, counted[0].gates, counted[1].gates
        )
        assert state(root / f"{name}-kill") == state(root / f"{name}-full"), "the same change gives the same files"
        before = jobs[name].after
    return jobs


def build_and_change_sources(root: Path) -> Path:
    """An index of rows and of files that were then changed; the renamed ones are the last."""
    rows = write_corpus(root / "rows.jsonl", [*range(12)], seed=3)
    files = root / "files"
    files.mkdir()
    draw = random.Random(4)
    for row in range(12):
        write_file(files / f"f{row:02}.md", " ".join(draw.choices(WORDS, k=6)))
    build_index([rows, files], root / "synced", model=WordEncoder(), options=IndexOptions(**OPTIONS))
    kept, new = (
        rows.read_text().splitlines(keepends=True)[3:10],
        write_corpus(root / "new.jsonl", [1, 2, 20, 21, 22, 23], seed=5),
    )
    rows.write_text("".join(kept) + new.read_text())
    for row in (1, 2):
        (files / f"f{row:02}.md").unlink()
    for row in (4, 5, 20, 21):
        write_file(files / f"f{row:02}.md", " ".join(draw.choices(WORDS, k=7)))
    for row in (7, 8):
        (files / f"f{row:02}.md").rename(files / f"z{row:02}.md")
    return root / "synced"


def write_file(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, (1e9, 1e9))  # long ago, so that its time says that it is unchanged


def copy(folder: Path | None, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(folder, target) if folder else target


def state(folder: Path) -> list[Any]:
    """Everything in an index but measured times and the numbers of segments and commits."""
    manifest = read_manifest(folder)
    segments = []
    for segment in manifest.segments:
        files = {
            name.partition("-")[0]: (segment_folder(folder, segment) / name).read_bytes()
            for name in segment.files
            if name != "report.json"
        }
        segments.append((segment.rows, segment.deleted, segment.documents, segment.type, files))
    return [manifest.dimension, manifest.fingerprint, manifest.options, *segments]


def journaled_rows(folder: Path) -> int:
    """Number of rows in finished blocks of the unfinished segment, by its journal."""
    committed = (
        {segment.name for segment in read_manifest(folder).segments} if (folder / "manifest.json").exists() else set()
    )
    journals = [path for path in folder.glob("segments/*/journal.jsonl") if path.parent.name not in committed]
    lines = [line for path in journals for line in path.read_bytes().split(b"\n")[:-1]]
    return max([json.loads(line).get("rows", 0) for line in lines], default=0)


def check_last_commit(folder: Path, job: Job) -> bool:
    """Whether the index is the one after the change; asserts that it is whole, and that or the one before."""
    if not (folder / "manifest.json").exists():
        assert job.before is None
        with pytest.raises(IndexFolderError, match="no such index|holds no (finished )?index"):
            open_index(folder)
        return False
    verify_index(folder)
    now, after = state(folder), state(job.after)
    assert now == after or (job.before and now == state(job.before)), "neither the index before nor the one after"
    answers = [
        [hit.id for hit in open_index(place, model=WordEncoder()).search(["bread moon", "oven"], k=5)[0]]
        for place in (folder, job.after)
    ]
    assert answers[0] == answers[1] or now != after
    return now == after


def disturb(server: FaultServer, job: Job, folder: Path, faults: list[Fault], expect: Callable[[Any], bool]) -> None:
    """Runs the change with one fault after another, then without, and asserts what is promised."""
    copy(job.before, folder)
    durable = 0
    for fault in faults:
        run = server.run(job.task, folder, fault, **job.arguments)
        assert expect(run), f"{fault}: {run}"
        done = check_last_commit(folder, job)
        if done:
            break
        assert run.encoded == job.texts[durable:][: len(run.encoded)], f"{fault}: a finished block was encoded again"
        encoded = durable + len(run.encoded)
        assert durable <= journaled_rows(folder), f"{fault}: a finished block was lost"
        durable = journaled_rows(folder)
        assert encoded - durable <= 2 * BLOCK, (
            f"{fault}: more was lost than the block being encoded and the one being written"
        )
    else:
        done = False
    if done and job.task in ("build", "upsert", "rebuild"):
        return  # run again, a build refuses to overwrite, or does all anew, and so do an upsert and a rebuild
    run = server.run(job.task, folder, **job.arguments)
    assert run.error == "", f"{faults}: {run}"
    assert run.encoded == ([] if done else job.texts[durable:]), f"{faults}: a finished block was encoded again"
    assert state(folder) == state(job.after), f"{faults}"
    manifest = read_manifest(folder)
    commits = [manifest, *filter(None, [read_previous(folder, manifest)])]
    named = {f"segments/{part.name}/{name}" for commit in commits for part in commit.segments for name in part.files}
    named |= {"manifest.previous.json"} if commits[1:] else set()
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "LOCK",
        "LOCK.pid",
    } == named | {"manifest.json"}


def killed(run: Any) -> bool:
    return run.code == -9 or (run.code == 0 and not run.error)  # the other thread may have changed the disk once less


def out_of_space(run: Any) -> bool:
    return run.code == 0 or (run.error.startswith("IndexFolderError: ") and "no space left" in run.error)


@pytest.mark.parametrize("name", TASKS)
def test_killed_at_some_changes_of_the_disk(
    server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str
) -> None:
    job, draw = jobs[name], random.Random(f"kill {name}")
    moments = draw.sample(range(1, job.gates + 1), min(20, job.gates))
    for number, at in enumerate(moments):
        disturb(server, job, tmp_path / "idx", [Fault(("kill", "half")[number % 2], at)], killed)


@pytest.mark.parametrize("name", TASKS)
def test_killed_again_and_again(server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str) -> None:
    job, draw = jobs[name], random.Random(f"again {name}")
    for _ in range(2):
        faults = [Fault(draw.choice(["kill", "half"]), draw.randint(1, job.gates)) for _ in range(4)]
        disturb(server, job, tmp_path / "idx", faults, killed)


@pytest.mark.parametrize("name", TASKS)
def test_killed_at_random_times(server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str) -> None:
    draw = random.Random(f"time {name}")
    for _ in range(3):
        disturb(server, jobs[name], tmp_path / "idx", [Fault(after=draw.uniform(0.001, 0.15))], killed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "half"])
@pytest.mark.parametrize("name", TASKS)
def test_killed_at_every_change_of_the_disk(
    server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str, kind: str
) -> None:
    for at in range(1, jobs[name].gates + 2):
        disturb(server, jobs[name], tmp_path / "idx", [Fault(kind, at)], killed)


def stopped(run: Any) -> bool:
    return run.code == 0 or run.error.startswith("KeyboardInterrupt")


@pytest.mark.parametrize("name", TASKS)
def test_interrupted_at_some_changes_of_the_disk(
    server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str
) -> None:
    """Cleaning up, which a killed process does not do, harms nothing either."""
    job, draw = jobs[name], random.Random(f"stop {name}")
    for at in draw.sample(range(1, job.gates + 1), min(8, job.gates)):
        disturb(server, job, tmp_path / "idx", [Fault("stop", at)], stopped)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_interrupted_at_every_change_of_the_disk(
    server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str
) -> None:
    for at in range(1, jobs[name].gates + 1):
        disturb(server, jobs[name], tmp_path / "idx", [Fault("stop", at)], stopped)


@pytest.mark.parametrize("name", TASKS)
def test_a_device_that_is_full_at_some_writes(
    server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str
) -> None:
    job, draw = jobs[name], random.Random(f"full {name}")
    for at in draw.sample(range(1, job.writes + 1), min(8, job.writes)):
        disturb(server, job, tmp_path / "idx", [Fault("full", at)], out_of_space)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_device_that_is_full_at_any_write(
    server: FaultServer, jobs: dict[str, Job], tmp_path: Path, name: str
) -> None:
    for at in range(1, jobs[name].writes + 1):
        disturb(server, jobs[name], tmp_path / "idx", [Fault("full", at)], out_of_space)
