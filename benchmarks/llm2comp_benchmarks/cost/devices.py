"""What a benchmark has to know of the device it measures on: when its work is done, and what memory it took."""

import torch

from llm2comp_benchmarks.cost.worker import peak_bytes, reset_peak

__all__ = ["device_memory_peak", "finish", "precisions", "start_memory"]


def finish(device: str) -> None:
    """Waits until a GPU has done what it was given; a CPU has done it when its call returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def start_memory(device: str) -> int:
    """Begins a new peak; memory held now, in bytes: the GPU's by PyTorch's tensors, or the process's own."""
    if torch.device(device).type != "cuda":
        return reset_peak()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def device_memory_peak(device: str) -> int:
    """The most memory since `start_memory`, in bytes."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else peak_bytes()


def precisions(wanted: str, device: str) -> tuple[str, ...]:
    """Precisions that ours is measured in, float32 first."""
    from llm2comp.backbone.hardware import multiplies_bfloat16

    return ("float32", *(("bfloat16",) if multiplies_bfloat16(device) else ())) if wanted == "auto" else (wanted,)
