"""FAISS indexes on disk: build one from a corpus or from vectors, add, delete, merge, search and verify.

The verbs are `build_index`, `open_index`, `add_documents`, `sync_index`, `delete_documents`, `merge_index`,
`rebuild_index`, `undo_index`, `push_index`, `audit_index` and `verify_index`.
Imports the core (`llm2comp`); no adapter, no benchmark.
"""

from llm2comp.corpus.fields import FieldNames
from llm2comp.encoder_options import EncoderOptions
from llm2comp_indexes.audit.run import Audit, AuditSettings, audit_index
from llm2comp_indexes.builder.encode_shard import ShardReport, encode_shard
from llm2comp_indexes.builder.forecast import Forecast, forecast_build
from llm2comp_indexes.builder.from_vectors import VectorFiles, build_from_vectors
from llm2comp_indexes.builder.index import BuildReport, build_index
from llm2comp_indexes.builder.shard_file import Part, parse_part
from llm2comp_indexes.change.delete import DeleteReport, delete_documents
from llm2comp_indexes.change.merge import MergeReport, merge_index
from llm2comp_indexes.change.rebuild import RebuildReport, rebuild_index
from llm2comp_indexes.change.sync import SyncReport, sync_index
from llm2comp_indexes.change.tune import TuneReport, tune_index
from llm2comp_indexes.change.undo import UndoReport, undo_index
from llm2comp_indexes.change.update import AddReport, add_documents
from llm2comp_indexes.distributed.dataset import encode_dataset
from llm2comp_indexes.distributed.encode import encode_on_ray
from llm2comp_indexes.distributed.report import ClusterReport
from llm2comp_indexes.distributed.request import ClusterOptions
from llm2comp_indexes.encoder import Encoder
from llm2comp_indexes.export.run import ExportReport, export_index
from llm2comp_indexes.format.verify import verify_index
from llm2comp_indexes.options import IndexOptions, Targets
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.search.index import Index, open_index
from llm2comp_indexes.search.options import SearchOptions
from llm2comp_indexes.stores.push import PushReport, push_index
from llm2comp_indexes.stores.search import StoreIndex, open_store_index
from llm2comp_indexes.structures.structure import Effort
from llm2comp_indexes.tuning.report import Report

Wishes = Targets
"""Older name of `Targets`."""

__all__ = [
    "AddReport",
    "Audit",
    "AuditSettings",
    "BuildReport",
    "ClusterOptions",
    "ClusterReport",
    "DeleteReport",
    "Effort",
    "Encoder",
    "EncoderOptions",
    "ExportReport",
    "FieldNames",
    "Forecast",
    "Hit",
    "Index",
    "IndexOptions",
    "MergeReport",
    "Part",
    "PushReport",
    "RebuildReport",
    "Report",
    "SearchOptions",
    "ShardReport",
    "StoreIndex",
    "SyncReport",
    "TuneReport",
    "UndoReport",
    "VectorFiles",
    "Targets",
    "Wishes",
    "add_documents",
    "audit_index",
    "build_from_vectors",
    "build_index",
    "delete_documents",
    "encode_dataset",
    "encode_on_ray",
    "encode_shard",
    "export_index",
    "forecast_build",
    "merge_index",
    "open_index",
    "open_store_index",
    "parse_part",
    "push_index",
    "rebuild_index",
    "sync_index",
    "tune_index",
    "undo_index",
    "verify_index",
]
