"""Reads an index from the first byte to the last and compares every file with its record."""

from pathlib import Path

import numpy as np

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.manifest import Manifest, read_manifest_alone
from llm2comp_indexes.format.segment import Segment, check_folders, segment_folder

__all__ = ["verify_index"]


def verify_index(folder: str | Path) -> Manifest:
    """The manifest of an index in which every byte of every file is as it was written, and the counts are right.

    Raises:
        IndexFolderError: It isn't; the message names every damaged file.
    """
    folder = Path(folder)
    while True:
        manifest = read_manifest_alone(folder)
        problems = [problem for segment in manifest.segments for problem in _problems(folder, segment)]
        if not problems:
            return manifest
        if read_manifest_alone(folder) == manifest:  # otherwise a writer committed and removed old files meanwhile
            raise IndexFolderError("; ".join(problems))


def _problems(index: Path, segment: Segment) -> list[str]:
    try:
        check_folders(index, segment)
    except IndexFolderError as error:
        return [str(error)]
    folder, problems = segment_folder(index, segment), []
    for name, record in segment.files.items():
        try:
            check_content(folder / name, record)
        except IndexFolderError as error:
            problems.append(str(error))
    if (bitmap := segment.deleted_file) and not problems:
        deleted = int(
            np.unpackbits(np.fromfile(folder / bitmap, np.uint8), count=segment.rows, bitorder="little").sum()
        )
        if deleted != segment.deleted:
            problems.append(
                f"{folder / bitmap}: marks {deleted:,} rows as deleted, the manifest {segment.deleted:,}; build the "
                "index again"
            )
    return problems
