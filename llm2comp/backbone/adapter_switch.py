"""The switch of an adapter: on for the encoder, in passes of several threads at once, off for one reading pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from llm2comp.backbone.last_layer import current_pass, memory_rows_only
from llm2comp.backbone.shared_lock import SharedLock

__all__ = ["AdapterSwitch"]


class AdapterSwitch:
    """Whether a model's adapter is on, for each of its passes; without an adapter passes exclude one another alike.

    Args:
        shared: Whether passes with the adapter on may run at once.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._lock = SharedLock()

    def on(self) -> AbstractContextManager[None]:
        """Holds off passes that switch the adapter off."""
        return self._lock.together() if self._shared else self._lock.alone()

    @contextmanager
    def off(self, model: nn.Module) -> Iterator[None]:
        """Switches the adapter off for one pass, while all other passes wait."""
        with self._lock.alone():
            layers = _adapter_layers(model)
            before = [layer._disable_adapters for layer in layers]
            for layer in layers:
                layer._disable_adapters = True
            try:
                yield
            finally:
                for layer, disabled in zip(layers, before, strict=True):
                    layer._disable_adapters = disabled

    def checkpoint_contexts(
        self, model: nn.Module
    ) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts of a checkpoint's forward pass and of its recomputation; torch asks within the forward pass."""
        layers = _adapter_layers(model)
        is_off = bool(layers) and layers[0]._disable_adapters
        packing = current_pass()

        @contextmanager
        def recomputing() -> Iterator[None]:
            with self.off(model) if is_off else self.on(), memory_rows_only(packing):
                yield

        return nullcontext(), recomputing()


def _adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
    if not isinstance(model, PeftModel):
        return []
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
