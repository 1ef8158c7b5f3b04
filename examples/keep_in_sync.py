"""A corpus of your own kept in sync: an index that follows a folder, with readers that stay open.

    pip install "llm2comp[cpu]"
    python examples/keep_in_sync.py examples/handbook

The folder is copied, and the copy is changed as people change folders: a file is edited, one renamed, one removed, one
added. Nothing is encoded that the index holds already. On the command line: llm2comp index sync DIR.
"""

import argparse
import shutil
from pathlib import Path

from llm2comp_indexes import Index, IndexOptions, SyncReport, build_index, open_index, sync_index

QUESTION = "Who feeds the office dog?"


def edit(folder: Path) -> None:
    """Changes the files of the folder."""
    first, second, third = sorted(folder.glob("*.md"))[:3]
    first.write_text(first.read_text(encoding="utf-8") + "\nAsk the office for a second screen.\n", encoding="utf-8")
    second.rename(folder / f"new-name-{second.name}")
    third.unlink()
    (folder / "dog.md").write_text("# The office dog\n\nBella is fed at noon by the front desk.\n", encoding="utf-8")


def describe(report: SyncReport) -> str:
    """What a sync did, or would do."""
    return (
        f"{report.added} new, {report.changed} changed, {report.renamed} renamed, {report.unchanged} unchanged, gone: "
        f"{', '.join(report.vanished) or 'none'}; {report.encoded} rows encoded"
    )


def best(index: Index) -> str:
    """The best document for the question."""
    [[hit]] = index.search([QUESTION], k=1)
    return f"{hit.score:.3f} {hit.id}"


def main() -> None:
    """Builds an index of a copy of the folder, changes the copy, and syncs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("keep-in-sync"), help="folder for the copy and the index")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    copy, folder = arguments.work / arguments.folder.name, arguments.work / "my.index"
    shutil.copytree(arguments.folder, copy)
    build_index([copy], folder, options=IndexOptions(chunk_tokens=64))
    with open_index(folder) as reader:
        print(f"before: {best(reader)}")
        edit(copy)
        print(f"would do: {describe(sync_index(folder, dry_run=True))}")
        print(f"done:     {describe(sync_index(folder))}")
        print(f"again:    {describe(sync_index(folder))}")
        reader.refresh()  # the model stays loaded
        print(f"after:  {best(reader)}")


if __name__ == "__main__":
    main()
