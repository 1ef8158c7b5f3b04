"""The stream benchmark: its texts differ, thinned curves keep their peaks, and a killed build is counted right."""

import json
import os
import sys
from pathlib import Path

import pytest

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.cost.stream.run import measure_stream, peaks_by_phase
from llm2comp_benchmarks.cost.stream.texts import short_sentences, write_stream
from llm2comp_benchmarks.cost.stream.watch import WatchedBuild, thinned
from tests.paths import RESULTS

FILES = sorted(RESULTS.glob("stream-*.json"))


def _write_corpus(file: Path) -> Path:
    texts = [
        "The moon rises late. Bread is baked early in the morning by bakers. No.",
        "Rain falls on fields!\nThe moon rises late. " + "x" * 50 + " is long now.",
    ]
    file.write_text(
        "".join(json.dumps({"_id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)), encoding="utf-8"
    )
    return file


def test_texts_are_short_sentences_and_no_two_are_the_same(tmp_path: Path) -> None:
    corpus = str(_write_corpus(tmp_path / "corpus.jsonl"))
    assert short_sentences(corpus) == ["The moon rises late.", "Rain falls on fields!"]
    first = write_stream(tmp_path / "stream.jsonl", corpus, 5)
    rows = [json.loads(line) for line in (tmp_path / "stream.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == first
    assert first[:3] == ["The moon rises late. 0", "Rain falls on fields! 1", "The moon rises late. 2"]
    assert len({row["_id"] for row in rows}) == len(set(first)) == 5


def test_a_corpus_without_short_sentences_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    with pytest.raises(LLM2CompError, match="no sentence of 3 to 7 words"):
        short_sentences(str(tmp_path / "corpus.jsonl"))


def test_a_thinned_curve_keeps_its_highest_points() -> None:
    values = [1] * 990
    values[500] = 7
    kept = thinned(values, 100, max)
    assert len(kept) == 100
    assert kept[50] == 7
    assert kept.count(7) == 1
    assert thinned([1, 2, 3], 100, max) == [1, 2, 3]
    watched = WatchedBuild()
    for second in range(400):
        watched.add(second, 10 * second, {"VmRSS": 5, "RssAnon": 3})
    samples = watched.samples()
    assert {len(part) for part in samples.values()} == {100}
    assert samples["seconds"][-1] == 399


def test_peaks_of_the_encoding_are_without_loading_and_finishing() -> None:
    curve = {
        "texts": [0, 0, 10, 20, 30, 40, 50, 50],
        "resident": [1, 2, 3, 4, 6, 5, 9, 8],
        "anonymous": [1, 1, 2, 2, 3, 3, 3, 7],
    }
    peaks = peaks_by_phase(curve)
    assert peaks["encoding_first_half"] == {"resident": 4, "anonymous": 2}
    assert peaks["encoding_second_half"] == {"resident": 6, "anonymous": 3}
    assert peaks["all"] == {"resident": 9, "anonymous": 7}


def test_too_few_texts_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="100 texts, expected at least 16,384, which are 8 blocks"):
        measure_stream(tmp_path / "work", 100)
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_killed_build_run_again_encodes_what_was_not_finished(tmp_path: Path) -> None:
    corpus = _write_corpus(tmp_path / "corpus.jsonl")
    record = measure_stream(tmp_path / "work", 20_000, shape="32x1x32", corpus=str(corpus))
    restart = record["restart"]
    assert restart["finished_before_the_kill"] % 2048 == 0
    assert 10_000 <= restart["finished_before_the_kill"] < 20_000
    assert restart["encoded_after_it"] == 20_000 - restart["finished_before_the_kill"]
    assert restart["finished_but_encoded_again"] == 0
    assert record["resumed"]["documents"] == 20_000
    for run in ("killed", "resumed"):
        assert (
            0
            < record[run]["peak_bytes"]["encoding_second_half"]["anonymous"]
            < record[run]["peak_bytes"]["all"]["resident"]
        )
        assert len(record["samples"][run]["seconds"]) == len(record["samples"][run]["resident"])
    assert record["settings"]["model"]["hidden"] == 32
    assert os.listdir(tmp_path / "work") == []


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_counts_and_peaks_in_results_are_those_of_their_curves(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    assert (
        record["restart"]["finished_before_the_kill"] + record["restart"]["encoded_after_it"]
        == record["settings"]["texts"]
    )
    for run in ("killed", "resumed"):
        assert record[run]["peak_bytes"] == peaks_by_phase(record["samples"][run])
