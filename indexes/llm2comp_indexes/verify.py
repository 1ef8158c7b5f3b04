"""Reads an index from the first byte to the last and compares every file with its record."""

from pathlib import Path

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.checked_files import check_content
from llm2comp_indexes.manifest import Manifest, read_manifest

__all__ = ["verify_index"]


def verify_index(folder: str | Path) -> Manifest:
    """The manifest of an index in which every byte of every file is as it was written.

    Raises:
        IndexFolderError: It isn't; the message names every damaged file.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    problems = []
    for segment in manifest.segments:
        for name, record in segment.files.items():
            try:
                check_content(folder / "segments" / segment.name / name, record)
            except IndexFolderError as error:
                problems.append(str(error))
    if problems:
        raise IndexFolderError("; ".join(problems))
    return manifest
