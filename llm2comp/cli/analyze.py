"""`llm2comp analyze`: what a model looks like inside, or two side by side."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.output import printable, tell

if TYPE_CHECKING:
    from llm2comp.analysis import Analysis

__all__ = ["register"]

_BUNDLED = "llm2comp-tiny"


def register(app: typer.Typer) -> None:
    """Adds `analyze` to the app."""
    app.command()(analyze)


def analyze(
    model: Annotated[
        str,
        typer.Argument(
            help=f"Model folder or Hub id; {_BUNDLED} is the bundled model; or the folder of any sentence-transformers model."
        ),
    ],
    texts: Annotated[
        str, typer.Argument(help="A corpus, as `index build` takes it: a .jsonl file, a folder, python-docs: …")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for analysis.json, spectrum.png and memory.png; made if it is not there."
        ),
    ],
    against: Annotated[
        str | None, typer.Option(help="A second model, set beside the first in every picture and table.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Texts, the first of the corpus.")] = 2000,
    pairs: Annotated[
        Path | None, typer.Option(help='Lines {"query", "positive"}, for the alignment; without it there is none.')
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of the language model that an encoder with all weights trained began as, to read its memory tokens."
        ),
    ] = None,
    reader_texts: Annotated[
        int, typer.Option(min=2, help="Texts, drawn from all, cut in two for the held-out losses.")
    ] = 128,
    reader_tokens: Annotated[int, typer.Option(min=21, help="Longest of these, in tokens.")] = 512,
    samples: Annotated[int, typer.Option(min=0, help="Of these, how many the reader goes on with.")] = 4,
    sample_tokens: Annotated[int, typer.Option(min=1, help="Tokens it writes.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of texts and the places where they are cut.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; left out: a GPU if there is one.")] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "auto"],
        typer.Option(help="Precision of the weights; below float32, rounding hides where a spectrum ends."),
    ] = "float32",
) -> None:
    """Spectrum, effective dimension, uniformity, memory-token similarity, and what the frozen language model reads from the memory tokens."""
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
    models = [model] if against is None else [model, against]
    analysis = analyze_models(models, settings, tell=tell, progress=sys.stderr.isatty())
    print(format_analysis(analysis))
    for found in analysis.models:
        if found.samples:
            print(f"\nWhat the language model writes, {found.name}:\n\n{format_samples(found.samples, printable)}")
    _print_notes(analysis)
    for file in _write(analysis, out):
        print(file, file=sys.stderr)


def _make_folder(folder: Path) -> None:
    """Everything is worked out before it is written: that it can be written should be known first."""
    from tempfile import TemporaryFile

    from llm2comp.errors import LLM2CompError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise LLM2CompError(
            f"{folder}: cannot be written to ({error.strerror}); give a folder that can, with --out"
        ) from error


def _write(analysis: "Analysis", folder: Path) -> list[Path]:
    import json

    from llm2comp.analysis.plots import plot_memory, plot_spectra
    from llm2comp.atomic import write_output

    spectrum, memory, numbers = (folder / name for name in ("spectrum.png", "memory.png", "analysis.json"))
    plot_spectra(analysis, spectrum)
    has_memory = plot_memory(analysis, memory)
    write_output(numbers, [json.dumps(analysis.to_json(), indent=2, ensure_ascii=False, allow_nan=False), "\n"])
    return [numbers, spectrum, *([memory] if has_memory else [])]


def _print_notes(analysis: "Analysis") -> None:
    """What a reader of the table should know, on stderr."""
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
