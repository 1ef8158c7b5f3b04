"""`llm2comp analyze`: description of the embeddings of a model, or of several side by side."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.bundled_models import DEFAULT_MODEL
from llm2comp.cli.output import printable, tell
from llm2comp.streams import on_terminal

if TYPE_CHECKING:
    from llm2comp.analysis import Analysis

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds `analyze` to the app."""
    app.command(short_help="Describe the embeddings of a model, in numbers and pictures.")(analyze)


def analyze(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"Folder or Hub id of a model ({DEFAULT_MODEL}: the bundled one) or of a sentence-transformers model.",
        ),
    ],
    texts: Annotated[
        str,
        typer.Argument(
            metavar="TEXTS", help="Corpus, as `index build` reads it: a .jsonl file, a folder, python-docs: …"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for analysis.json, spectrum.png, memory.png and map.png; created if it does not exist.",
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Further model, shown beside the first in every picture and table; may be repeated.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Number of texts, from the beginning of the corpus.")] = 2000,
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='JSON lines {"query", "positive"}; needed for the alignment.'),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Metadata field of the texts; its values colour a map of them, map.png, in which near texts are "
            "similar.",
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Language model that reads the memory tokens (folder, Hub id or GGUF file): the model that the "
            "encoder was before; needed if all its weights were trained, or it was made of the first layers only.",
        ),
    ] = None,
    reader_texts: Annotated[
        int, typer.Option(min=2, help="Number of texts, drawn at random, for the reader's losses on continuations.")
    ] = 128,
    reader_tokens: Annotated[int, typer.Option(min=21, help="Maximum length of these texts in tokens.")] = 512,
    samples: Annotated[int, typer.Option(min=0, help="Number of these texts that the reader continues.")] = 4,
    sample_tokens: Annotated[int, typer.Option(min=1, help="Length of a continuation in tokens.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of texts and of where they are split.")] = 0,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 …", show_default="a GPU if there is one")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "auto"],
        typer.Option(help="Precision of the weights; with less than float32, rounding hides the end of a spectrum."),
    ] = "float32",
) -> None:
    """Describe the embeddings of a model: spectrum, effective dimension, uniformity, similarity of memory tokens.

    Also what the frozen language model can read from the memory tokens.
    """
    from llm2comp.analysis import AnalysisSettings
    from llm2comp.analysis import analyze as analyze_models
    from llm2comp.analysis.table import format_analysis, format_samples
    from llm2comp.optional import check_matplotlib

    check_matplotlib()
    _make_folder(out)
    settings = AnalysisSettings(
        corpus=texts,
        limit=limit,
        pairs=str(pairs) if pairs else None,
        labels=labels,
        reader=reader,
        reader_texts=reader_texts,
        reader_tokens=reader_tokens,
        samples=samples,
        sample_tokens=sample_tokens,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    keep_freed_memory()
    models = [model, *(against or [])]
    analysis = analyze_models(models, settings, tell=tell, progress=on_terminal())
    print(format_analysis(analysis))
    for analyzed in analysis.models:
        if analyzed.samples:
            print(
                f"\nWhat the language model writes, {analyzed.name}:\n\n{format_samples(analyzed.samples, printable)}"
            )
    _print_notes(analysis)
    for file in _write(analysis, out):
        print(file, file=sys.stderr)


def _make_folder(folder: Path) -> None:
    """Creates the folder and checks that files can be written to it, before the analysis, which takes long."""
    from tempfile import TemporaryFile

    from llm2comp.errors import LLM2CompError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise LLM2CompError(
            f"{folder}: cannot be written to ({error.strerror}); give another folder with --out"
        ) from error


def _write(analysis: "Analysis", folder: Path) -> list[Path]:
    import json

    from llm2comp.analysis.map import plot_map
    from llm2comp.analysis.plots import plot_memory, plot_spectra
    from llm2comp.atomic import write_output

    spectrum, memory, numbers = (folder / name for name in ("spectrum.png", "memory.png", "analysis.json"))
    plot_spectra(analysis, spectrum)
    has_memory = plot_memory(analysis, memory)
    write_output(numbers, [json.dumps(analysis.to_json(), indent=2, ensure_ascii=False, allow_nan=False), "\n"])
    pictures = [spectrum, *([memory] if has_memory else [])]
    if analysis.labels:
        vectors = [(model.name, model.description.vectors) for model in analysis.models]
        known = [(name, rows) for name, rows in vectors if rows is not None]
        field, seed = str(analysis.settings.labels), analysis.settings.seed
        pictures.append(folder / "map.png")
        plot_map(known, analysis.labels, pictures[-1], field=field, seed=seed)
    return [numbers, *pictures]


def _print_notes(analysis: "Analysis") -> None:
    """Prints on stderr what a reader of the table should know."""
    if analysis.empty:
        print(f"{analysis.empty:,} empty text{'s were' if analysis.empty > 1 else ' was'} left out", file=sys.stderr)
    if analysis.settings.pairs is None:
        print('no alignment, which needs pairs: --pairs FILE with lines {"query", "positive"}', file=sys.stderr)
    for model in analysis.models:
        if model.no_reading:
            fix = (
                ""
                if model.fingerprint is None or analysis.settings.reader
                else "; --reader names the language model to read with"
            )
            print(f"{model.name}: no reading from memory, for {model.no_reading}{fix}", file=sys.stderr)
