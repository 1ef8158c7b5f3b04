"""What it saves to compute the last layer for the memory tokens only: encoding with and without it, in turn.

`python -m llm2comp_benchmarks.cost.encode.last_layer benchmarks/results/last-layer.json DATA/eval/scifact FOLDER...`
measures the bundled model and the language models in the folders, on documents and on the queries of a BEIR folder.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import llm2comp
from llm2comp import LLM2Comp
from llm2comp.bundled_models import DEFAULT_MODEL
from llm2comp.corpus.judgements import read_queries
from llm2comp.corpus.read import read_corpus
from llm2comp_benchmarks.cost.devices import precisions
from llm2comp_benchmarks.cost.models import model_facts
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["compare_last_layers", "measure_last_layer"]

_VARIANTS = ("memory tokens", "all tokens")


def measure_last_layer(
    beir: Path,
    backbones: Sequence[Path] = (),
    *,
    documents: int = 24,
    queries: int = 128,
    rounds: int = 7,
    threads: int = 1,
) -> dict[str, Any]:
    """The record: an entry for each model, precision and kind of text; see `compare_last_layers`.

    Args:
        beir: BEIR folder, whose first documents and queries are encoded.
        backbones: Folders of language models, which are measured untrained beside the bundled model.
        documents: Number of documents.
        queries: Number of queries.
        rounds: Rounds, in each of which both variants encode all texts once.
        threads: PyTorch's threads.
    """
    torch.set_num_threads(threads)
    kept = llm2comp.keep_freed_memory()
    texts = {
        "documents": [document.content for document in islice(read_corpus(str(beir)), documents)],
        "queries": list(islice(read_queries(next(beir.glob("queries.jsonl*"))).values(), queries)),
    }
    start, entries, models = time.perf_counter(), {}, {}
    for folder in (None, *backbones):
        name = folder.name if folder else DEFAULT_MODEL
        for precision in precisions("auto", "cpu"):
            model = _load(folder, precision)
            models[name] = model_facts(model)
            for kind, chosen in texts.items():
                entries[f"{name} {precision} {kind}"] = compare_last_layers(model, chosen, rounds)
                _tell(f"{name} {precision} {kind}: {entries[f'{name} {precision} {kind}']['speed']}")
    settings = {"corpus": beir.name, "models": models, "rounds": rounds, "freed_memory_kept": kept}
    record = result_record([], settings, threads=threads)
    return {**entries, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def compare_last_layers(model: LLM2Comp, texts: list[str], rounds: int) -> dict[str, Any]:
    """Both variants on the same texts, in turn.

    Returns:
        `speed`: seconds with all tokens over seconds with the memory tokens only, round by round. `cpu_seconds` of each
        variant and round, so that other work on the machine counts as little as possible. `texts` and `tokens`.
    """
    model.encode(texts)
    seconds: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    for _, variant in in_turn(_VARIANTS, rounds):
        with _all_tokens(model) if variant == "all tokens" else nullcontext():
            start = time.process_time()
            model.encode(texts)
            seconds[variant].append(time.process_time() - start)
    ours, full = (seconds[variant] for variant in _VARIANTS)
    tokens = sum(len(ids) + model.memory_tokens for ids in model.encoder.token_ids(texts))
    speed = RoundStats.ratio(full, ours).to_json()
    return {"speed": speed, "cpu_seconds": seconds, "texts": len(texts), "tokens": tokens}


@contextmanager
def _all_tokens(model: LLM2Comp) -> Iterator[None]:
    """Has the model compute the last layer for all tokens."""
    backbone: Any = model.encoder.backbone
    encode = backbone.encode
    backbone.encode = lambda embeddings, lengths, *, tail=0: encode(embeddings, lengths)
    try:
        yield
    finally:
        del backbone.encode


def _load(backbone: Path | None, precision: str) -> LLM2Comp:
    if backbone is None:
        return llm2comp.load(device="cpu", dtype=precision)
    model = LLM2Comp.from_backbone(backbone, adapter=None, dtype=precision, device="cpu")
    model.requires_grad_(False)
    return model


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # progress of a command run by hand


def main() -> None:
    """Measures both variants; arguments: the result file, a BEIR folder, and folders of language models or none."""
    file, beir, *backbones = sys.argv[1:]
    write_record(file, measure_last_layer(Path(beir), [Path(folder) for folder in backbones]))


if __name__ == "__main__":
    main()
