"""Encoding passes by OpenVINO on CPUs, as a graph that is traced from transformers' own layers.

OpenVINO fuses a layer into few kernels, which it compiles for the processor. The texts of a batch are padded to one
length; a pass, whose texts come sorted by length, is divided into batches of similar lengths.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llm2comp.backbone.attention import Packing, tail_rows
from llm2comp.backbone.forward import run_packed
from llm2comp.backbone.hardware import multiplies_bfloat16, multiplies_tiles
from llm2comp.backbone.openvino_graph import convert_decoder, openvino_core
from llm2comp.backbone.pass_threads import passes_beside
from llm2comp.backbone.probe import PROBE_TEXTS
from llm2comp.backbone.weight_state import WeightState
from llm2comp.errors import BackboneError, one_line
from llm2comp.fork import never_free, run_after_fork
from llm2comp.optional import optional_import

__all__ = ["OpenVinoPass", "openvino_runs_here"]

_LEAST_FILLED = 0.75
"""Length of a batch's shortest text, as a share of the longest."""

_LEAST_COSINE = 0.999
"""Between states of the graph and of the model itself."""

_THREADS_WITH_TILES = 2
"""Least threads of a bfloat16 pass on a CPU with AMX, even where one is asked for; passes wait for one another there.
OpenVINO 2026.4.1 divides by zero as it compiles these products for streams of one thread, which ends the process."""

_compiled: "WeakSet[_Requests]" = WeakSet()
_used = _lost_threads = False


def openvino_runs_here() -> bool:
    """Whether OpenVINO can run in this process: not if it was forked from one that used it, whose threads it lacks."""
    return not _lost_threads


class OpenVinoPass:
    """The passes of a model as a graph of OpenVINO, traced from the present modules and weights, adapter merged.

    Any number of threads may call it. It is compiled when first needed, once for passes side by side, with a stream for
    each, and once for a pass that has all threads.

    Attributes:
        weights: Modules and weights that were traced.

    Raises:
        BackboneError: If OpenVINO is not installed, or its graph of the model gives other states.
    """

    def __init__(self, model: PreTrainedModel, *, has_llama_layers: bool) -> None:
        global _used
        if _lost_threads:
            raise BackboneError("engine openvino does not work in a process forked from one that used it")
        optional_import("openvino", extra="openvino", needed_by="engine openvino", error_type=BackboneError)
        _used = True
        self.weights = WeightState(model)
        in_half = model.dtype == torch.bfloat16 and multiplies_bfloat16("cpu")
        self._precision = "bf16" if in_half else "f32"
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, int], _Requests] = {}
        try:
            with torch.inference_mode(False), torch.no_grad():
                self._graph = convert_decoder(model, has_llama_layers=has_llama_layers)
                self._check(model)
        except Exception as error:  # whatever a class raises that cannot be traced or compiled
            raise BackboneError(
                f"engine openvino cannot run {type(model).__name__} ({one_line(error, limit=160)}): give engine torch"
            ) from error

    def __call__(self, embeddings: Tensor, lengths: Sequence[int], tail: int = 0) -> Tensor:
        """Final hidden states of texts that are given end to end, each token seeing its whole text.

        Args:
            embeddings: (tokens, hidden).
            lengths: Tokens of each text.
            tail: With a tail, only states of this many tokens at the end of each text are needed.

        Returns:
            (tokens, hidden), after the final norm; with a tail, 0 for other tokens.
        """
        requests = self._requests(passes_beside(), torch.get_num_threads())
        states = torch.zeros_like(embeddings)
        begin = 0
        for sizes in _batches(lengths):
            end = begin + int(sizes.sum())
            chosen = tail or int(sizes.max())
            columns = (sizes[:, None] - torch.arange(chosen, 0, -1)).clamp_min_(0)
            hidden = requests.run(_padded(embeddings[begin:end], sizes), sizes, columns).to(states.dtype)
            is_token = torch.arange(chosen, 0, -1) <= sizes[:, None]  # the last ones of each text
            states[begin:end][tail_rows(sizes.cumsum(0), chosen)[is_token]] = hidden[is_token]
            begin = end
        return states

    def _requests(self, streams: int, threads: int) -> "_Requests":
        """The graph compiled for this many passes side by side, of this many threads each."""
        if self._precision == "bf16" and multiplies_tiles():
            streams, threads = 1, max(streams * threads, _THREADS_WITH_TILES)
        with self._lock:
            if (streams, threads) not in self._compiled:
                self._compiled[streams, threads] = _Requests(self._graph, self._precision, streams, threads)
            return self._compiled[streams, threads]

    def _check(self, model: PreTrainedModel) -> None:
        """Compares the graph's states of two texts with those of the model."""
        lengths = [len(text) for text in PROBE_TEXTS]
        embedded = model.get_input_embeddings()(torch.tensor([token for text in PROBE_TEXTS for token in text]))
        expected = run_packed(model, embedded, Packing.of(lengths, causal=False, device=embedded.device))
        cosine = float(nn.functional.cosine_similarity(self(embedded, lengths).float(), expected.float()).min())
        if not cosine >= _LEAST_COSINE:
            raise BackboneError(f"a cosine of {cosine:.4f} to the model's own states")


class _Requests:
    """A compiled graph, and its requests that no thread uses at present."""

    def __init__(self, graph: Any, precision: str, streams: int, threads: int) -> None:
        _compiled.add(self)
        self._model = openvino_core().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY",
                "NUM_STREAMS": str(streams),
                "INFERENCE_NUM_THREADS": str(streams * threads),
                "ENABLE_CPU_PINNING": "NO",  # several processes would pin theirs to the same cores
            },
        )
        self._idle: list[Any] = []

    def run(self, padded: Tensor, sizes: Tensor, columns: Tensor) -> Tensor:
        """Final hidden states of the chosen tokens of padded texts, (texts, tokens chosen of each, hidden), float32.

        Args:
            padded: Input embeddings, (texts, tokens, hidden), float32.
            sizes: Tokens of each text, (texts,).
            columns: Positions of the chosen tokens, (texts, tokens chosen of each).
        """
        outside = torch.arange(padded.shape[1]) >= sizes[:, None]
        added = torch.zeros(outside.shape).masked_fill_(outside, torch.finfo(torch.float32).min)[:, None, None]
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        request.infer([part.numpy() for part in (padded, added, columns)], share_inputs=True)
        states = torch.from_numpy(request.get_output_tensor(0).data.copy())
        self._idle.append(request)
        return states


def _batches(lengths: Sequence[int]) -> Iterator[Tensor]:
    """Lengths of each batch: neighbouring texts, of which the shortest is at least `_LEAST_FILLED` of the longest."""
    batch = [lengths[0]]
    least = most = lengths[0]
    for length in lengths[1:]:
        least, most = min(least, length), max(most, length)
        if least < _LEAST_FILLED * most:
            yield torch.tensor(batch)
            batch, least, most = [], length, length
        batch.append(length)
    yield torch.tensor(batch)


def _padded(embeddings: Tensor, sizes: Tensor) -> Tensor:
    """Texts that are given end to end, (tokens, hidden), as (texts, tokens, hidden) in float32, padded on the right."""
    return nn.utils.rnn.pad_sequence(embeddings.float().split(sizes.tolist()), batch_first=True)


def _note_fork() -> None:
    """Leaves the parent's graphs alone, in a forked process: to free them would wait for threads that it lacks."""
    global _lost_threads
    _lost_threads = _used
    for requests in _compiled:
        never_free(requests)


run_after_fork(_note_fork)
