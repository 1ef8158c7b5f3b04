"""Fields of stages that a recipe or a command leaves out: they follow from the model and from `steps`.

Rates, decay and batches are the paper's (recipe `llama-2-7b-paper`), except where they depend on how long the run is or
on the model: warm-up is a tenth of the updates and the decay ends with the last one, lengths stay within the model's,
and checkpointing and micro-batches are decided by the memory at hand when training begins.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from llm2comp.training.limits import BackboneLimits, backbone_limits

__all__ = ["LONGEST_INPUT", "fill_model", "fill_recipe", "fill_stage"]

LONGEST_INPUT = 1024
"""Longest input in tokens where the model has room for it, as in the paper."""
_SHORTEST_TEXT, _LONGEST_TEXT, _LEAST_CHARACTERS, _MARGIN, _LONGEST_QUERY = 3, 512, 1000, 10, 512
_WARMUP = _FLOOR = 0.1
_STAGES: dict[str, dict[str, Any]] = {
    "compression": {"steps": 8000, "batch_size": 4, "learning_rate": 1e-4, "weight_decay": 1e-5, "clip": 2.0},
    "unsupervised": {
        "steps": 1000,
        "batch_size": 128,
        "learning_rate": 3e-5,
        "weight_decay": 1e-3,
        "attention_dropout": 0.2,
        "adapter": "merge",
    },
    "supervised": {"steps": 200, "batch_size": 1024, "learning_rate": 1e-4, "adapter": "merge"},
}
_MNTP = "mntp"


def fill_recipe(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a recipe with all defaults filled in, and the lengths among them that exceed the model's.

    Values that are not what they should be are left as they are, to be refused by the settings' own checks.
    """
    filled = dict(values)
    model = values.get("model")
    if not isinstance(model, Mapping):
        return filled, []
    filled["model"], problems = fill_model(model, _pretrained_limits(values))
    length = filled["model"].get("max_length")
    trained = False
    for name in ("pretrain", "compression", "unsupervised", "supervised", "lengthen"):
        if isinstance(stage := values.get(name), Mapping):
            filled[name] = fill_stage(
                name,
                stage,
                max_length=length if isinstance(length, int) else LONGEST_INPUT,
                memory_tokens=_count(model.get("memory_tokens"), 8),
                memory_trained=trained,
            )
            trained = trained or name != "pretrain"
    return filled, problems


def _pretrained_limits(values: Mapping[str, Any]) -> BackboneLimits | None:
    """Limits of the backbone that stage 0 of a recipe trains; None without that stage."""
    pretrain = values.get("pretrain")
    shape = pretrain.get("shape") if isinstance(pretrain, Mapping) else None
    if not isinstance(shape, Mapping):
        return None
    return BackboneLimits(_count(shape.get("max_positions"), 2048), _count(shape.get("layers"), 0) or None)


def fill_model(values: Mapping[str, Any], limits: BackboneLimits | None) -> tuple[dict[str, Any], list[str]]:
    """Fields of a model with its `max_length` filled in, and which of those given exceed the backbone's.

    Args:
        values: Fields of `ModelSettings`.
        limits: Limits of the backbone; None reads them from the backbone's configuration.
    """
    if limits is None and isinstance(backbone := values.get("backbone"), str):
        limits = backbone_limits(backbone, values.get("revision"))
    longest, layers = limits or BackboneLimits()
    filled = {"max_length": min(LONGEST_INPUT, longest or LONGEST_INPUT), **values}
    problems = []
    if longest is not None and _count(filled["max_length"], 0) > longest:
        problems.append(f"model: max_length {filled['max_length']} exceeds the language model's own maximum, {longest}")
    if layers is not None and _count(filled.get("layers"), 0) > layers:
        problems.append(f"model: layers {filled['layers']} exceeds the language model's number of layers, {layers}")
    return filled, problems


def fill_stage(
    name: str, values: Mapping[str, Any], *, max_length: int, memory_tokens: int, memory_trained: bool
) -> dict[str, Any]:
    """Fields of a stage with defaults for those left out.

    Args:
        name: `pretrain`, `compression`, `mntp`, `unsupervised`, `supervised` or `lengthen`.
        values: The fields given; a null counts as given.
        max_length: Longest input of the model in tokens, memory tokens included.
        memory_tokens: Number of memory tokens.
        memory_trained: Whether an earlier stage trained them; stage 2 then leaves them as they are.
    """
    kind = {"lengthen": "supervised", _MNTP: "compression"}.get(name, name)
    filled = {**_STAGES.get(kind, {}), **values}
    for field, value in _derived(filled):
        filled.setdefault(field, value)
    room = max_length if name == _MNTP else max_length - memory_tokens
    if kind == "compression":
        filled.setdefault("max_tokens", max(_SHORTEST_TEXT, min(_LONGEST_TEXT, room)))
        tokens = _count(filled["max_tokens"], _LONGEST_TEXT)
        filled.setdefault("min_characters", min(_LEAST_CHARACTERS, 2 * tokens))
        filled.setdefault("margin", max(1, min(_MARGIN, (tokens - 1) // 2)))
    elif kind == "unsupervised":
        filled.setdefault("freeze_memory", memory_trained)
    elif kind == "supervised" and max_length > _LONGEST_QUERY:
        filled.setdefault("max_query_tokens", _LONGEST_QUERY)
    return filled


def _derived(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields that follow from the number of updates and the learning rate."""
    steps = values.get("steps")
    if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0:
        decay = _count(values.get("decay_steps"), steps)
        yield "warmup_steps", round(_WARMUP * decay)
        yield "save_steps", max(1, min(200, steps // 10))
        yield "eval_steps", max(1, min(200, steps // 10))
        yield "log_steps", max(1, min(10, steps // 20))
    try:
        yield "learning_rate_floor", _FLOOR * float(values["learning_rate"])
    except (KeyError, TypeError, ValueError):
        return  # refused by the settings' own checks


def _count(value: Any, otherwise: int) -> int:
    """The value if it is a whole number, else the other."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else otherwise
