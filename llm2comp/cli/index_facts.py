"""What `llm2comp index info` prints about an index, as JSON values and as text."""

from typing import TYPE_CHECKING, Any

from llm2comp.corpus.report import list_names
from llm2comp.units import format_bytes

if TYPE_CHECKING:
    from llm2comp.corpus.sources import Source
    from llm2comp_indexes import Report
    from llm2comp_indexes.format.manifest import Manifest
    from llm2comp_indexes.format.segment import Segment

__all__ = ["format_facts", "list_facts"]

_SOURCES_SHOWN = 5


def list_facts(manifest: "Manifest") -> dict[str, Any]:
    """JSON values by name: what the index holds, which type and options were requested, what made it."""
    options = manifest.options
    return {
        "documents": manifest.documents,
        "rows": manifest.rows,
        "dimension": manifest.dimension,
        "type": [segment.type for segment in manifest.segments],
        "asked_for": options.type,
        "store": options.store,
        "chunks": options.describe_chunks() or None,
        "hybrid": options.hybrid,
        "language": options.language,
        "memory_vectors": _list_memory(manifest),
        "size": manifest.bytes,
        "commit": manifest.commit,
        "model": manifest.model
        or ("not recorded: given as an object" if manifest.fingerprint else "unknown: vectors made elsewhere"),
        "fingerprint": manifest.fingerprint,
        "encoder": manifest.encoder.to_json(),
        "sources": [_list_source(source) for source in manifest.sources or ()],
        "created_by": dict(manifest.created_by),
    }


def format_facts(manifest: "Manifest", report: "Report | None") -> dict[str, str]:
    """The same facts and the measurements as text, by label; those without a value are left out."""
    facts, count = list_facts(manifest), len(manifest.segments)
    texts = {
        "documents": f"{manifest.documents:,} in {count} segment{'s' * (count != 1)}",
        "rows": f"{manifest.rows:,} chunks of {facts['chunks']}" if facts["chunks"] else "",
        "dimension": f"{manifest.dimension:,}, stored as {facts['store']}",
        "type": "; ".join(map(_format_segment, manifest.segments)) or "none: empty",
        "asked for": _format_targets(manifest),
        "words": _format_words(manifest),
        "late": _format_memory(manifest),
        "size": format_bytes(manifest.bytes),
        "memory": f"{format_bytes(report.memory)} to search{' the largest segment' * (count > 1)}, estimated"
        if report
        else "",
        "model": facts["model"],
        "fingerprint": facts["fingerprint"],
        "encoded with": manifest.encoder.describe(),
        "sources": _format_sources(manifest),
        "columns": _format_columns(manifest),
        "commit": f"{manifest.commit:,}, by {', '.join(map(' '.join, manifest.created_by.items()))}",
        "built in": ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items() if seconds >= 0.05)
        if report
        else "",
        "queries": report.query_source if report else "",
        "measured": report.reason if report else "",
        "exact": f"{report.exact.median_ms:.2g} ms per query for comparing all vectors (median)"
        if report and report.exact
        else "",
    }
    return {name: text for name, text in texts.items() if text}


def _list_memory(manifest: "Manifest") -> dict[str, Any] | None:
    """Kind, k and size of the vectors of memory tokens; None if they are not stored."""
    if (form := manifest.memory) is None:
        return None
    return {"kind": form.kind, "tokens": form.tokens, "bytes_per_row": form.row_bytes, "bytes": manifest.memory_bytes}


def _format_words(manifest: "Manifest") -> str:
    options = manifest.options
    if not options.hybrid:
        return ""
    stems = f" of {options.language} stems" if options.language else ""
    return f"a BM25 index{stems}, for --mode bm25 and hybrid"


def _format_memory(manifest: "Manifest") -> str:
    if (form := manifest.memory) is None:
        return ""
    size = f"{format_bytes(manifest.memory_bytes)}, {form.row_bytes:,} bytes a row"
    return f"{form.tokens} vectors a row as {form.kind}, for --rescore maxsim: {size}"


def _list_source(source: "Source") -> dict[str, Any]:
    """A source's name and root, and the types of its CSV columns if it has any."""
    return {"name": source.name, "root": source.root} | ({"columns": dict(source.columns)} if source.columns else {})


def _format_columns(manifest: "Manifest") -> str:
    """Names of CSV columns by type, for each of the first sources that have some."""
    typed = [source for source in manifest.sources or () if source.columns]
    shown = []
    for source in typed[:_SOURCES_SHOWN]:
        types = dict[str, list[str]]()
        for name, type_ in source.columns:
            types.setdefault(type_, []).append(name)
        shown.append(f"{source.name}: " + "; ".join(f"{type_}: {list_names(names)}" for type_, names in types.items()))
    return " | ".join(shown + [f"{len(typed) - len(shown)} more sources"] * (len(typed) > len(shown)))


def _format_segment(segment: "Segment") -> str:
    return f"{segment.type} of {segment.rows:,} row{'s' * (segment.rows != 1)}" + (
        f", {segment.deleted:,} of them deleted" if segment.deleted else ""
    )


def _format_sources(manifest: "Manifest") -> str:
    sources = manifest.sources or ()
    shown = [f"{source.name} ({source.root or 'read on several machines'})" for source in sources[:_SOURCES_SHOWN]]
    return ", ".join(shown + [f"{len(sources) - len(shown)} more"] * (len(sources) > len(shown)))


def _format_targets(manifest: "Manifest") -> str:
    from llm2comp_indexes.options import format_latency

    targets = manifest.options.targets
    memory = "any memory" if targets.memory is None else f"at most {format_bytes(targets.memory)} of memory"
    recall = f"recall@{targets.k} {targets.recall:g}"
    return f"type {manifest.options.type}, {recall}, {format_latency(targets)} per query, {memory}"
