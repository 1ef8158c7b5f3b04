"""Arguments and options that several commands on indexes share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm2comp.cli.output import wrong_usage

if TYPE_CHECKING:
    from llm2comp.corpus.fields import FieldNames
    from llm2comp.encoder_options import EncoderOptions
    from llm2comp_indexes import IndexOptions

CORPUS = (
    "BEIR folder, .jsonl .parquet .csv .tsv (or .gz .xz .zst), .txt .md .rst .html .pdf .docx .epub, folder or quoted "
    "pattern, s3://, gs://, hf://, hub:NAME, python-docs:, -"
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `index build` wrote.")]
Corpora = Annotated[list[str], typer.Argument(metavar="CORPUS", help=CORPUS)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="Bundled model by name, folder or Hub id.", show_default="llm2comp-tiny"
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(
        help="Precision of the model's weights; auto: bfloat16 where the hardware multiplies it natively.",
        show_default="auto, or as the index says",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="TOKENS",
        help="Maximum length of a text, memory tokens included.",
        show_default="the model's own",
    ),
]
TruncateDim = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Keep the first N components of each vector.", show_default="all"),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Texts in a batch of the model.", show_default="256 on a CPU, 32 on a GPU")
]
Engine = Annotated[
    Literal["auto", "torch", "openvino"] | None,
    typer.Option(help="What computes vectors on a CPU; auto is torch.", show_default="torch, or as the index says"),
]
ModelDevice = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Where the model runs: cpu, cuda, cuda:1 and so on.", show_default="a GPU if there is one"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Read the first N documents only.", show_default="all"),
]
OnlyModelDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where the model runs: cpu, cuda, cuda:1 and so on.",
        show_default="a GPU if there is one",
    ),
]
OnError = Annotated[
    Literal["raise", "skip"], typer.Option(help="Stop at the first malformed row, or skip and count such rows.")
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line of .csv and .tsv files has the column names.",
        show_default="if it has known ones",
    ),
]
Quotes = Annotated[
    bool | None,
    typer.Option(
        "--quotes/--no-quotes",
        help="Whether fields of .csv and .tsv files may be enclosed in quotes.",
        show_default="in .csv they may, in .tsv if the file shows it",
    ),
]
IdField = Annotated[
    str | None, typer.Option(metavar="NAME", help="Field of a row's id.", show_default="the first known name")
]
TitleField = Annotated[
    str | None, typer.Option(metavar="NAME", help="Field of a row's title.", show_default="the first known name")
]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Field of a row's text; may be repeated, and texts are joined in this order.",
        show_default="the first known name",
    ),
]
MetadataFields = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Fields kept as metadata; '' for none.", show_default="all other fields"),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of the only CORPUS, with which ids made for its documents begin; with its old name, a moved one is "
        "the same source still.",
        show_default="name of its file or folder",
    ),
]
IdsArePositions = Annotated[
    bool, typer.Option("--ids-are-positions", help="Make ids of rows without one from their lines, not their content.")
]
Separator = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR",
        help="Character between the values of .csv and .tsv files, such as ';' or tab.",
        show_default="the one that the first lines show",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Encoding of text files, such as windows-1252.",
        show_default="utf-8, and what the files show",
    ),
]
CsvStrings = Annotated[
    bool,
    typer.Option(
        "--csv-strings",
        help="Keep all columns of .csv and .tsv files as text, also those that have numbers, dates or true and false "
        "alone.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where FAISS trains and adds vectors; auto: on a GPU if FAISS finds one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Type = Annotated[
    str,
    typer.Option(
        "--type",
        "-t",
        metavar="NAME",
        help="auto (chosen by measuring), flat, hnsw, ivf, ivfpq, or a FAISS factory string.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Maximum memory of a search, such as 500M, 4G or 16GiB.", show_default="no limit"
    ),
]
Latency = Annotated[
    float | None,
    typer.Option(metavar="MS", help="Maximum median time of a query, in milliseconds.", show_default="10"),
]
Recall = Annotated[float, typer.Option(help="Minimum share of the true nearest results that a search finds.")]
Results = Annotated[
    int, typer.Option("--k", min=1, max=1000, help="Results per query that recall and latency are measured for.")
]
Store = Annotated[Literal["float32", "float16", "int8"], typer.Option(help="Precision of the stored vectors.")]
ChunkTokens = Annotated[
    int | None,
    typer.Option(
        min=1, help="Split documents into chunks of at most this many tokens.", show_default="whole documents"
    ),
]
ChunkByFidelity = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Instead of --chunk-tokens: chunks as long as their memories keep this share of what their texts are "
        "worth to the language model of --reader.",
        show_default="whole documents",
    ),
]
ChunkReader = Annotated[
    str | None,
    typer.Option(
        "--reader",
        metavar="MODEL",
        help="With --chunk-by-fidelity: language model that the model was made from (folder, Hub id, GGUF file).",
        show_default="the model's own",
    ),
]
ChunkOverlap = Annotated[
    int, typer.Option(min=0, help="Maximum number of tokens in the whole sentences that neighbouring chunks share.")
]
ChunkAt = Annotated[
    Literal["sentences", "tokens"],
    typer.Option(
        help="Where chunks end: at headings, paragraphs and sentences, or after each --chunk-tokens tokens, as before."
    ),
]
ChunkContext = Annotated[
    bool,
    typer.Option(
        "--chunk-context/--no-chunk-context",
        help="Put the title and the headings above a chunk before its text when it is encoded.",
    ),
]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="Build a BM25 index too, for search --mode bm25 and hybrid.")]
Language = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With --hybrid: count stems of this language, such as english, instead of words.",
        show_default="words as they are",
    ),
]
NewLanguage = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Language whose stems the BM25 index counts, such as english; none: words as they are.",
        show_default="as built",
    ),
]
MemoryVectors = Annotated[
    Literal["int8", "binary"] | None,
    typer.Option(
        help="Store the vectors of each row's memory tokens too, a byte or a bit a component, for search --rescore.",
        show_default="none",
    ),
]
Rescore = Annotated[
    Literal["maxsim"] | None,
    typer.Option(help="Order the first results by MaxSim over the vectors of memory tokens.", show_default="none"),
]
Candidates = Annotated[
    int | None,
    typer.Option(min=1, max=10_000, help="With --rescore: number of results that are ordered.", show_default="100"),
]


def field_names(
    id_field: str | None, title_field: str | None, text_field: list[str] | None, metadata_fields: str | None
) -> "FieldNames | None":
    """The fields that the options name, None if they name none; what does not fit is wrong usage."""
    if id_field is None and title_field is None and not text_field and metadata_fields is None:
        return None
    from llm2comp.corpus.fields import FieldNames

    metadata = None if metadata_fields is None else tuple(filter(None, map(str.strip, metadata_fields.split(","))))
    with wrong_usage():
        return FieldNames(id_field, title_field, tuple(text_field or ()), metadata)


def encoder_options(**options: str | int | None) -> "EncoderOptions":
    """The options of a model; what does not fit is wrong usage."""
    from llm2comp.encoder_options import EncoderOptions

    with wrong_usage():
        return EncoderOptions(**options)  # type: ignore[arg-type]  # each is of the type that its option has


def check_layout(separator: str | None, encoding: str | None) -> dict[str, str | None]:
    """The two as arguments of the functions that read a corpus; what does not fit is wrong usage."""
    from llm2comp.corpus.table_format import TableFormat

    with wrong_usage():
        TableFormat(separator=separator, encoding=encoding)
    return {"separator": separator, "encoding": encoding}


def index_options(
    memory: str | None, latency_ms: float | None, recall: float, k: int, **options: Any
) -> "IndexOptions":
    """Options of an index with these targets; what they do not allow is wrong usage.

    Args:
        memory: Size such as 4G; None for no limit.
        latency_ms: Milliseconds; None for the default.
        recall: From 0 to 1.
        k: Results per query.
        options: Further fields of `IndexOptions`.
    """
    from llm2comp.units import parse_bytes
    from llm2comp_indexes import IndexOptions, Targets

    with wrong_usage():
        size = parse_bytes(memory) if memory else None
        chosen = IndexOptions(targets=Targets(memory=size, latency_ms=latency_ms, recall=recall, k=k), **options)
    return chosen


def bm25_changes(hybrid: bool | None, language: str | None) -> dict[str, Any]:
    """Fields of `IndexOptions` that an index is to get by --hybrid and --language; None: as it was built."""
    given: dict[str, Any] = {} if hybrid is None else {"hybrid": hybrid}
    if hybrid is False:
        given["language"] = None
    if language is not None:
        given["language"] = None if language == "none" else language
    return given


def name_and_folder(text: str) -> tuple[str, Path]:
    """The name and the folder in `NAME=DIR`."""
    name, separator, folder = text.partition("=")
    if not separator or not name or not folder:
        raise typer.BadParameter(f"--index {text}: expected NAME=DIR, such as --index wiki=./wiki-index")
    return name, Path(folder)


Fusion = Annotated[
    Literal["scores", "ranks"] | None,
    typer.Option(help="With --mode hybrid: by scores scaled to 0..1, or by reciprocal ranks.", show_default="scores"),
]
Weights = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="VECTORS WORDS",
        help="With --mode hybrid: weights of the two rankings.",
        show_default="0.3 0.7; of ranks: 1 1",
    ),
]


def check_fusion(mode: str | None, fusion: str | None, weights: tuple[float, float] | None) -> None:
    """Refuses options of fusion in another mode than hybrid.

    Raises:
        typer.BadParameter: There is one.
    """
    for name, value in (("--fusion", fusion), ("--weights", weights)):
        if value is not None and mode != "hybrid":
            raise typer.BadParameter(f"{name} goes with --mode hybrid")
