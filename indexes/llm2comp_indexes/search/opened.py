"""What belongs to one commit of an open index: its manifest, its open segments and its model."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes.encoder import Encoder, load_encoder
from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.mapping import limit_explained
from llm2comp_indexes.search.checks import check_model
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["LazyModel", "OpenedCommit", "load_model", "open_segments", "parse_filter", "search_on_gpus"]

_logger = logging.getLogger(__name__)


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


def load_model(opened: OpenedCommit, folder: Path) -> Encoder:
    """The model of the commit, loaded at its first use.

    Raises:
        IndexFolderError: It cannot be loaded, or is not the one that the index was built with.
    """
    if opened.model.encoder is None:
        if not opened.manifest.fingerprint:
            raise IndexFolderError(
                f"{folder}: its vectors were made elsewhere, by a model it does not know; name the model "
                "(--model), or search_vectors"
            )
        try:
            encoder = load_encoder(opened.manifest.model, opened.load_with)[0]
        except LLM2CompError as error:
            raise IndexFolderError(
                f"{folder}: its model cannot be loaded: {error}; say where it lies now (--model)"
            ) from error
        opened.model.encoder = check_model(encoder, opened.manifest, folder)
    return opened.model.encoder


def parse_filter(where: str | Where | None, segments: Sequence[OpenSegment]) -> Where | None:
    """The filter, which names no field and no type that no document has."""
    if where is None:
        return None
    parsed = parse_where(where) if isinstance(where, str) else where
    parsed.check(segment.metadata for segment in segments)
    return parsed


def search_on_gpus(segments: Sequence[OpenSegment], *, required: bool) -> None:
    """Copies segments to the GPUs; those of other types are an error if it is required, else searched by the CPU."""
    for segment in segments:
        try:
            segment.use_gpus()
        except SettingsError as error:
            if required:
                raise
            _logger.warning("segment %s is searched by the CPU: %s", segment.segment.name, error)
