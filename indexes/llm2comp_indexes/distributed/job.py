"""The job that a folder of parts belongs to: what its vectors depend on, and what every host must see there."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2comp.atomic import write_file
from llm2comp.checked_json import JsonFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.distributed.table import Table
from llm2comp_indexes.options import IndexOptions

__all__ = ["JOB", "Job", "check_seen", "open_parts"]

JOB = "job.json"
_FORMAT = JsonFormat(
    "record of an encoding", IndexFolderError, "start again with --overwrite", most_bytes=1 << 20, version=1
)


@dataclass(frozen=True, slots=True)
class Job:
    """All that an actor needs to encode blocks.

    Attributes:
        folder: Folder of the parts, an absolute path.
        token: Content of a field of its record, by which a host shows that it sees the same folder.
        model: Name or folder for `llm2comp.load`; None: the bundled model.
        fingerprint: Fingerprint that the model must have.
        dimension: Length of a vector.
        options: Chunking.
        encoder: How the model runs.
        table: The table that blocks are written to as well; None: none.
        done: File of the hashes of documents that earlier runs encoded; None: blocks are known by their keys.
    """

    folder: str
    token: str
    model: str | None
    fingerprint: str
    dimension: int
    options: IndexOptions
    encoder: EncoderOptions
    table: Table | None = None
    done: str | None = None


def open_parts(folder: Path, header: Mapping[str, Any]) -> str:
    """The token of the folder of parts, which is made if it is not there.

    Args:
        folder: The folder.
        header: JSON values that its vectors depend on.

    Raises:
        IndexFolderError: It holds parts of another model, encoding or chunking, or cannot be written.
    """
    path = folder / JOB
    if path.exists():
        content = _FORMAT.read(path)
        _FORMAT.check_version(content, path)
        if {name: value for name, value in content.items() if name not in ("format", "token")} != dict(header):
            raise IndexFolderError(
                f"{folder}: holds parts that an unfinished run made of another kind of corpus, or with another model, "
                "encoding or chunking; run that one again, name another folder with -o, or --overwrite it"
            )
        return str(content["token"])
    token = secrets.token_hex(16)
    write_file(path, [json.dumps({"format": _FORMAT.version, "token": token, **header}, indent=1)])
    return token


def check_seen(job: Job, host: str) -> None:
    """Raises IndexFolderError unless this host sees the folder of the parts."""
    path = Path(job.folder, JOB)
    if not path.is_file():
        raise IndexFolderError(
            f"{path}: not there on the host {host}; the hosts of a cluster write to one folder: name one that all of "
            "them share with -o"
        )
    if _FORMAT.read(path).get("token") != job.token:
        raise IndexFolderError(
            f"{path}: another file on the host {host}; the hosts of a cluster write to one folder: name one that all "
            "of them share with -o"
        )
