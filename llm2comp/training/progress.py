"""What a run reports: lines in columns with the time left, and a bar on a terminal."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp.streams import on_terminal

__all__ = ["ProgressBar", "format_entry"]

_COLUMNS = (("loss", "loss", "<9.5g"), ("learning_rate", "rate", "<9.3g"), ("grad_norm", "norm", "<8.4g"))


def format_entry(entry: Mapping[str, Any], total: int, seconds_left: float | None = None) -> str:
    """One line about an entry of `metrics.jsonl`; entries of training have the same columns.

    Args:
        entry: The step, and values by name.
        total: Updates of the run.
        seconds_left: Estimated time to the last update, None if unknown.
    """
    place = f"step {entry['step']:>{len(str(total))}}/{total}"
    if "loss" not in entry:
        names = (name for name in entry if name != "step" and not name.endswith("_runtime"))
        values = (f"{_spoken(name)} {_short(entry[name])}" for name in names)
        return "  ".join([place, *values])
    parts = [f"{label} {entry[name]:{layout}}" for name, label, layout in _COLUMNS if name in entry]
    if "tokens_per_second" in entry:
        parts.append(f"{entry['tokens_per_second']:>9,.0f} tokens/s")
    if seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(seconds_left))} left")
    named = {"step", "tokens_per_second", *(name for name, _, _ in _COLUMNS)}
    parts += [f"{_spoken(name)} {_short(value)}" for name, value in entry.items() if name not in named]
    return "  ".join([place, *parts]).rstrip()


def _spoken(name: str) -> str:
    """Name of a value for people: `eval_questions_loss` is the held-out loss of the data set `questions`."""
    if name.startswith("eval_") and name.endswith("loss"):
        data_set = name.removeprefix("eval_").removesuffix("loss").strip("_")
        return f"held-out loss ({data_set})" if data_set else "held-out loss"
    return name.replace("_", " ")


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class ProgressBar(TrainerCallback):
    """A bar with the number of updates and the time left on stderr, if that is a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Draws the bar at the step where the run begins or goes on."""
        if state.is_world_process_zero and on_terminal():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", leave=False)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Moves the bar to the present step."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Shows the last loss behind the bar."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix_str(f"loss {logs['loss']:.4g}", refresh=False)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
