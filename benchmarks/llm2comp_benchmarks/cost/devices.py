"""What a benchmark has to know about its device: when its work is done, and how much memory it took."""

import torch

from llm2comp_benchmarks.cost.memory import peak_bytes, reset_peak

__all__ = ["device_memory_peak", "finish", "precisions", "start_memory"]


def finish(device: str) -> None:
    """Waits until a GPU has done its work; a CPU has done it when a call returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def start_memory(device: str) -> int:
    """Resets the peak that `device_memory_peak` returns; returns the memory in use now, in bytes.

    On a GPU that is the memory of PyTorch's tensors, else that of the process.
    """
    if torch.device(device).type != "cuda":
        return reset_peak()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def device_memory_peak(device: str) -> int:
    """Peak memory since `start_memory`, in bytes."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else peak_bytes()


def precisions(precision: str, device: str) -> tuple[str, ...]:
    """The precisions that our system is measured in, float32 first; `auto` adds bfloat16 where it is native."""
    from llm2comp.backbone.hardware import multiplies_bfloat16

    if precision != "auto":
        return (precision,)
    return ("float32", "bfloat16") if multiplies_bfloat16(device) else ("float32",)
