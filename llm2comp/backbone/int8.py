"""Weights stored as int8: each 64 numbers of a row times a float16 scale, symmetric, restored when a model is loaded.

The scale of such a group is its largest absolute value over 127; rows that do not divide into groups of 64 have one
scale. Rows that this would change too much, because an outlier leaves the other numbers few steps or a scale is out of
float16's range, are stored as they are beside the others. Vectors (norms, biases) are not quantised.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from llm2comp.errors import ModelFolderError, one_line

__all__ = ["INT8_SUFFIX", "holds_int8", "load_int8", "round_to_int8", "store_as_int8"]

INT8_SUFFIX = ".int8.safetensors"
"""End of the names of files with int8 weights, which transformers does not load by itself."""
_LARGEST = 127
_GROUP = 64
"""Numbers that share a scale: 3 % more bytes than one scale for a whole row, for three quarters of its error."""
_LARGEST_ERROR = 1 / 64
"""Norm of a row's rounding error over the norm of the row, above which the row is not quantised. Rows of normally
distributed numbers have 0.005 to 0.01; 1/64 is a cosine of 0.9999."""
_SCALE, _EXACT, _EXACT_ROWS = ".int8_scale", ".int8_exact", ".int8_exact_rows"
_PARTS = (_SCALE, _EXACT, _EXACT_ROWS)


class _Quantized(NamedTuple):
    """A matrix as int8: `values` as the matrix, `scale` float16 (rows, groups), and rows stored as they are.

    Models saved before there were groups have one scale for each row, (rows,).
    """

    values: Tensor
    scale: Tensor
    exact: Tensor
    exact_rows: Tensor

    def restored(self) -> Tensor:
        """The matrix in float32."""
        rows = _rescaled(self.values.flatten(0, -2), self.scale)
        rows[self.exact_rows] = self.exact.float()
        return rows.view(self.values.shape)


def holds_int8(folder: str | Path) -> bool:
    """Whether a folder holds weights stored as int8."""
    return any(Path(folder).glob(f"*{INT8_SUFFIX}"))


def round_to_int8(tensor: Tensor) -> Tensor:
    """The tensor as it is after it was stored as int8 and loaded, float32; vectors and integers are unchanged."""
    return _quantize(tensor).restored() if _is_matrix(tensor) else tensor


def store_as_int8(folder: Path) -> None:
    """Replaces the weight files of a language model's folder by files of int8 weights, one by one."""
    for path in sorted(folder.glob("*.safetensors")):
        tensors: dict[str, Tensor] = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                tensors |= _stored(name, file.get_tensor(name))
        save_file(tensors, path.with_name(path.stem + INT8_SUFFIX), metadata={"format": "pt"})
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)  # of files that are no more


def load_int8(folder: str | Path, *, dtype: torch.dtype, trust_remote_code: bool = False) -> tuple[Any, dict[str, Any]]:
    """The causal language model in a folder of int8 weights, in the given precision, and transformers' loading report.

    Matrices are restored one at a time, so memory is that of the model and a few matrices.

    Raises:
        ModelFolderError: Scales are missing or do not fit their matrix, or a file cannot be read.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):  # for its class only
        kind = type(AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code))
    with _stored_weights(Path(folder)) as weights:
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    if Path(folder, GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model, report


class _StoredMatrix:
    """A matrix in an open file, restored when indexed, as transformers does with the tensors it loads."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name

    def __getitem__(self, index: Any) -> Tensor:
        return self.read().restored()[index]

    def read(self) -> _Quantized:
        parts = (self._file.get_tensor(f"{self._name}{part}") for part in ("", *_PARTS))
        return _Quantized(*parts)


@contextmanager
def _stored_weights(folder: Path) -> Iterator[dict[str, Any]]:
    """Weights of all int8 files of a folder by name, checked, read when they are indexed."""
    weights: dict[str, Any] = {}
    with ExitStack() as files:
        for path in sorted(folder.glob(f"*{INT8_SUFFIX}")):
            try:
                file = files.enter_context(safe_open(path, framework="pt"))
                weights |= _opened(file)
            except (OSError, SafetensorError, ValueError) as error:
                raise ModelFolderError(f"{path}: {one_line(error)}: copy the model folder again") from error
        yield weights


def _opened(file: Any) -> dict[str, Any]:
    """Weights of an open file by name.

    Raises:
        ValueError: The parts of a matrix do not fit, or are missing.
    """
    names = set(file.keys())
    weights: dict[str, Any] = {}
    for name in sorted(name for name in names if not name.endswith(_PARTS)):
        entry = file.get_slice(name)
        if entry.get_dtype() != "I8":
            weights[name] = entry
            continue
        if missing := [part for part in _PARTS if name + part not in names]:
            raise ValueError(f"{name} is stored as int8, but {name}{missing[0]} is missing")
        _check_parts(name, entry.get_shape(), *(file.get_tensor(name + part) for part in _PARTS))
        weights[name] = _StoredMatrix(file, name)
    return weights


def _check_parts(name: str, shape: list[int], scale: Tensor, exact: Tensor, exact_rows: Tensor) -> None:
    rows = torch.Size(shape[:-1]).numel()
    fits = len(shape) > 1 and scale.shape in ((rows,), (rows, _groups(shape[-1]))) and scale.dtype == torch.float16
    if not fits:
        raise ValueError(
            f"{name}{_SCALE} has shape {tuple(scale.shape)} ({scale.dtype}), int8 weights of shape {tuple(shape)} need "
            f"one float16 per row, or per {_GROUP} numbers of a row"
        )
    if not scale.isfinite().all() or (scale < 0).any():
        raise ValueError(f"{name}{_SCALE} holds scales that are negative or not finite")
    is_row = not len(exact_rows) or (
        exact_rows.dtype == torch.int64 and 0 <= exact_rows.min() <= exact_rows.max() < rows
    )
    if exact.shape != (len(exact_rows), shape[-1]) or not is_row:
        raise ValueError(f"{name}{_EXACT_ROWS} does not number rows of {name}, of shape {tuple(shape)}")


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() > 0


def _stored(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not _is_matrix(tensor):
        return {name: tensor}
    return {f"{name}{part}": value for part, value in zip(("", *_PARTS), _quantize(tensor), strict=True)}


def _quantize(tensor: Tensor) -> _Quantized:
    """The matrix, or stack of matrices, as int8."""
    rows = tensor.detach().cpu().flatten(0, -2)
    numbers = rows.float()
    grouped = numbers.unflatten(1, (_groups(numbers.shape[1]), -1))
    scale = _scales(grouped)
    steps = scale.float().clamp(min=torch.finfo(torch.float32).tiny)[..., None]  # a scale of 0 is of a group of zeros
    values = (grouped / steps).round_().nan_to_num_(0).clamp_(-_LARGEST, _LARGEST).to(torch.int8).flatten(1)
    is_close = _relative_error(numbers, _rescaled(values, scale)) <= _LARGEST_ERROR  # false for a NaN
    exact_rows = (~is_close).nonzero().flatten()
    values[exact_rows] = 0
    scale[exact_rows] = 0
    return _Quantized(values.view(tensor.shape), scale, rows[exact_rows].contiguous(), exact_rows)


def _groups(columns: int) -> int:
    """Number of scales of a row."""
    return columns // _GROUP if columns % _GROUP == 0 else 1


def _rescaled(values: Tensor, scale: Tensor) -> Tensor:
    """Numbers in float32 of int8 values, (rows, columns), and their scales, (rows,) or (rows, groups)."""
    groups = scale.float().view(len(scale), -1, 1)
    rescaled: Tensor = values.unflatten(1, (groups.shape[1], -1)).float().mul_(groups).flatten(1)
    return rescaled


def _relative_error(numbers: Tensor, rounded: Tensor) -> Tensor:
    """Norm of each row's error over the norm of the row; 0 for rows of zeros, NaN for rows that are not finite."""
    largest = numbers.abs().amax(1, keepdim=True)  # divided by it, no square leaves float32's range
    unit = torch.where(largest == 0, 1, largest)
    norms = torch.linalg.vector_norm(torch.where(largest == 0, 1, numbers / unit), dim=1)
    error: Tensor = torch.linalg.vector_norm((numbers - rounded) / unit, dim=1) / norms
    return error


def _scales(numbers: Tensor) -> Tensor:
    """Scale of each group in float16, rounded up, so that no number of it exceeds 127 steps."""
    largest = numbers.abs().amax(-1)
    scale = (largest / _LARGEST).to(torch.float16)
    is_low = scale.float() * _LARGEST < largest
    return torch.where(
        is_low & scale.isfinite(), torch.nextafter(scale, torch.full_like(scale, torch.inf)), scale
    ).nan_to_num_(0, posinf=0)
