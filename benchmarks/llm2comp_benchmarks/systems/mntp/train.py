"""The MNTP baseline through all stages; like those of a recipe, each has a folder of its own and can be resumed.

The loss is in `objective`, the model in `encoder`.
"""

from pathlib import Path

from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.recipe import train_once
from llm2comp.training.settings import ContrastiveSettings, ModelSettings
from llm2comp_benchmarks.systems.mntp.encoder import TEXT_MEAN_FILE, load_text_mean, text_mean_of
from llm2comp_benchmarks.systems.mntp.objective import MntpSettings, train_masked

__all__ = ["save_untrained_text_mean", "train_mntp", "train_text_mean"]


def train_mntp(
    backbone: str | Path, output: Path, settings: MntpSettings, model: ModelSettings, *, final: bool = False
) -> Path:
    """Trains a language model by MNTP, unless it is finished; an interrupted run resumes where it stopped.

    Args:
        backbone: Hub id or folder.
        output: Folder of checkpoints, `metrics.jsonl` and the finished `model/`.
        settings: `mntp_like(stage)` has the budget of a compression stage: the same texts in the same order, and as
            many updates.
        model: Adapter, layers, max_length and query_instruction, as for models with memory tokens.
        final: Whether the model is saved in the precision of `model.weights`; else as it was trained.

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
        weights=model.weights if final else None,
    )


def train_text_mean(
    previous: Path, output: Path, settings: ContrastiveSettings, model: ModelSettings, *, final: bool = False
) -> Path:
    """Trains a text-mean model in stage 2 (settings with corpora) or 3 (with pairs), as models with memory tokens are.

    Args:
        previous: Folder of the model that the stage starts from.
        output: As `train_mntp`.
        settings: As for models with memory tokens. Lengths are counted in tokens of the model's input, which has no
            memory tokens here.
        model: Its adapter is the new one of `adapter: merge`.
        final: As `train_mntp`.

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
        weights=model.weights if final else None,
    )


def save_untrained_text_mean(backbone: str | Path, folder: Path, model: ModelSettings) -> Path:
    """Saves the untrained bidirectional language model that MNTP starts from, unless it exists; returns the folder."""
    if not (folder / TEXT_MEAN_FILE).is_file():
        text_mean_of(backbone, model).save(folder)
    return folder
