"""What belongs to one commit of an open index: its manifest, its open segments and its model."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from llm2comp.encoder_options import EncoderOptions
from llm2comp_indexes.encoder import Encoder
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.mapping import limit_explained
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["LazyModel", "OpenedCommit", "open_segments"]


class LazyModel:
    """A model that is loaded at its first use, by the searches of one or several commits."""

    encoder: Encoder | None = None


class OpenedCommit(NamedTuple):
    """What belongs to one commit of an open index.

    Attributes:
        manifest: The commit.
        segments: Its segments.
        starts: First row of each segment, and the end.
        model: Its model.
        load_with: Options that the model is loaded with.
    """

    manifest: Manifest
    segments: list[OpenSegment]
    starts: list[int]
    model: LazyModel
    load_with: EncoderOptions


def open_segments(
    folder: Path, manifest: Manifest, known: Sequence[OpenSegment], *, searchable: bool
) -> list[OpenSegment]:
    """The segments of the commit, opened, except those that are known."""
    reusable = {opened.segment.name: opened for opened in known}
    segments: list[OpenSegment] = []
    with limit_explained(), ExitStack() as opened:
        for segment in manifest.segments:
            same = reusable.get(segment.name)
            if same is not None and same.segment == segment:
                segments.append(same)
                continue
            segments.append(OpenSegment(folder, manifest, segment, searchable=searchable))
            opened.callback(segments[-1].close)
        opened.pop_all()
    return segments
