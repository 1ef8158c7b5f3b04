"""LLM2Vec's pretext (MNTP) as a baseline, through all stages, each in a folder of its own, resumable, as a recipe's are for our models.

The loss is in `mntp_training`, the model in `mntp_encoder`.
"""

from pathlib import Path

from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.recipe import train_once
from llm2comp.training.settings import ContrastiveSettings, ModelSettings
from llm2comp_benchmarks.systems.mntp.encoder import TEXT_MEAN_FILE, load_text_mean, text_mean_of
from llm2comp_benchmarks.systems.mntp.objective import MntpSettings, train_masked

__all__ = ["save_untrained_text_mean", "train_mntp", "train_text_mean"]


def train_mntp(backbone: str | Path, output: Path, settings: MntpSettings, model: ModelSettings) -> Path:
    """MNTP on a language model, unless it is finished there already; run again, it goes on where it was.

    Args:
        backbone: Hub id or folder.
        output: Gets checkpoints, `metrics.jsonl` and the finished `model/`.
        settings: `mntp_like(stage)` has the budget of a compression stage: the same texts in the same order, and as
            many updates.
        model: As for our models: adapter, max_length, query_instruction.

    Returns:
        Folder of the finished model, for `load_text_mean` and `train_text_mean`.

    Raises:
        SettingsError: If the folder was begun with other settings.
        LLM2CompError: As `train_masked`.
    """
    return train_once(
        "mntp",
        settings,
        output,
        lambda: text_mean_of(backbone, model, precision=settings.precision),
        model,
        lambda start: train_masked(start, settings, output),
        mark=TEXT_MEAN_FILE,
    )


def train_text_mean(previous: Path, output: Path, settings: ContrastiveSettings, model: ModelSettings) -> Path:
    """Stage 2 (settings with corpora) or 3 (with pairs) on a text-mean model, by the trainer of our own models.

    Args:
        previous: Folder of the model it starts from.
        output: As `train_mntp`.
        settings: As for our models. Lengths are counted in tokens of the model's input, which holds no memory tokens
            here.
        model: Its adapter is the fresh one of `adapter: merge`.

    Returns:
        Folder of the finished model.

    Raises:
        SettingsError: If the folder was begun with other settings.
        LLM2CompError: As `train_contrastive`.
    """
    dtype = "float32" if model.adapter is None else settings.precision
    return train_once(
        "text-mean",
        settings,
        output,
        lambda: load_text_mean(previous, dtype=dtype),
        model,
        lambda start: train_contrastive(start, settings, output, fresh_adapter=model.adapter),
        mark=TEXT_MEAN_FILE,
    )


def save_untrained_text_mean(backbone: str | Path, folder: Path, model: ModelSettings) -> Path:
    """The mean over the tokens of a language model that reads both ways and was not trained to: where MNTP starts."""
    if not (folder / TEXT_MEAN_FILE).is_file():
        text_mean_of(backbone, model).save(folder)
    return folder
