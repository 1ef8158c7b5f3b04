"""Every kind of task against mteb's own evaluation of the same texts, with the same vectors."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp_benchmarks.mteb.samples import has_samples, read_samples
from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.tasks.classification import evaluate_classification, read_classification
from llm2comp_benchmarks.tasks.clustering import evaluate_clustering, read_clustering
from llm2comp_benchmarks.tasks.pair_classification import evaluate_pairs, read_pair_classification
from llm2comp_benchmarks.tasks.reranking import evaluate_reranking, read_reranking
from tests.benchmarks.conftest import WordHashes

mteb = pytest.importorskip("mteb", reason="needs the extra eval")

TOPICS = {
    "fruit": ["apple", "banana", "plum", "cherry", "pear", "grape", "melon", "fig"],
    "stone": ["granite", "basalt", "marble", "slate", "flint", "chalk", "quartz", "agate"],
    "cloth": ["linen", "cotton", "silk", "wool", "velvet", "denim", "felt", "lace"],
    "metal": ["iron", "copper", "zinc", "tin", "lead", "nickel", "silver", "gold"],
    "tool": ["hammer", "saw", "drill", "chisel", "plane", "rasp", "vice", "clamp"],
}
COMMON = [
    "the",
    "a",
    "of",
    "and",
    "in",
    "on",
    "with",
    "under",
    "near",
    "some",
    "old",
    "new",
    "red",
    "small",
    "big",
    "round",
]


def write_texts(file: Path, per_topic: int, seed: int) -> list[tuple[str, str]]:
    """Lines of text and label, shuffled; a text has three words of its topic and three that say nothing."""
    draw = random.Random(seed)
    rows = [
        (" ".join(draw.sample(words, 3) + draw.choices(COMMON, k=3)), topic)
        for topic, words in TOPICS.items()
        for _ in range(per_topic)
    ]
    draw.shuffle(rows)
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return rows


@pytest.fixture
def model() -> WordHashes:
    return WordHashes(64)  # few places: different words share some, so that no task is solved completely


def score_by_mteb(
    folder: Path, name: str, dataset: Any, model: WordHashes, **settings: Any
) -> tuple[dict[str, Any], Samples]:
    """Scores and samples of the model by mteb's task of this name, on these data instead of the task's."""
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    class Wrapped(AbsEncoder):
        mteb_model_meta = ModelMeta.create_empty(
            {"name": "words/hashes", "revision": "1", "similarity_fn_name": ScoringFunction.COSINE}
        )

        def encode(self, inputs: Any, **_: Any) -> Any:
            return model.encode_document([text for batch in inputs for text in batch["text"]])

    task = mteb.get_task(name)
    task.dataset, task.data_loaded = dataset, True
    for setting, value in settings.items():
        assert hasattr(task, setting)
        setattr(task, setting, value)
    assert has_samples(task)
    options = {
        "split": "test",
        "subsets_to_run": ["default"],
        "encode_kwargs": {"batch_size": 8},
        "prediction_folder": folder / "predictions",
    }
    scores: dict[str, Any] = task.evaluate(Wrapped(), **options)["default"]
    samples = read_samples(task, scores, folder / "predictions")
    assert samples is not None
    return scores, samples


def assert_same_samples(theirs: Samples, ours: Samples | None) -> None:
    """Value by value, in the same order."""
    assert ours is not None
    assert (theirs.metric, theirs.statistic, theirs.unit) == (ours.metric, ours.statistic, ours.unit)
    assert theirs.values == pytest.approx(ours.values, abs=1e-6)
    assert theirs.truth == ours.truth


def test_classification(tmp_path: Path, model: WordHashes) -> None:
    from datasets import Dataset, DatasetDict

    splits = {"train": write_texts(tmp_path / "train.tsv", 20, 1), "test": write_texts(tmp_path / "test.tsv", 15, 2)}
    number = {label: position for position, label in enumerate(TOPICS)}
    data = DatasetDict(
        {
            split: Dataset.from_dict(
                {"text": [text for text, _ in rows], "label": [number[label] for _, label in rows]}
            )
            for split, rows in splits.items()
        }
    )
    theirs, samples = score_by_mteb(tmp_path, "Banking77Classification", data, model)
    ours = evaluate_classification(read_classification(tmp_path), model)
    assert 0.5 < ours.metrics["accuracy"] < 0.98
    assert ours.metrics == pytest.approx({"accuracy": theirs["accuracy"], "f1": theirs["f1"]}, abs=1e-6)
    assert len(ours.samples.values) == 75
    assert np.mean(ours.samples.values) == pytest.approx(ours.metrics["accuracy"], abs=1e-6)
    assert_same_samples(samples, ours.samples)


def test_clustering(tmp_path: Path, model: WordHashes) -> None:
    from datasets import Dataset, DatasetDict

    rows = write_texts(tmp_path / "topics.tsv", 30, 3)
    data = DatasetDict(
        test=Dataset.from_dict({"sentences": [text for text, _ in rows], "labels": [label for _, label in rows]})
    )
    theirs, samples = score_by_mteb(
        tmp_path, "StackExchangeClustering.v2", data, model, max_fraction_of_documents_to_embed=None
    )
    ours = evaluate_clustering(read_clustering(tmp_path / "topics.tsv"), model)
    assert 0.1 < ours.metrics["v_measure"] < 0.95
    assert ours.metrics["v_measure"] == pytest.approx(theirs["v_measure"], abs=1e-6)
    assert ours.samples.values == pytest.approx(theirs["v_measures"]["Level 0"], abs=1e-6)
    assert_same_samples(samples, ours.samples)


def test_pair_classification(tmp_path: Path, model: WordHashes) -> None:
    from datasets import Dataset, DatasetDict
    from sklearn.metrics import average_precision_score

    draw = random.Random(4)
    texts = write_texts(tmp_path / "texts.tsv", 20, 4)
    pairs = [
        (first, second, int(one == other))
        for (first, one), (second, other) in (draw.sample(texts, 2) for _ in range(300))
    ]
    pairs += [(text, text, number % 2) for number, (text, _) in enumerate(texts[:6])]  # ties at the top
    (tmp_path / "pairs.tsv").write_text(
        "sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t{label}\n" for a, b, label in pairs), encoding="utf-8"
    )
    columns = {
        name: [pair[column] for pair in pairs] for column, name in enumerate(("sentence1", "sentence2", "labels"))
    }
    theirs, samples = score_by_mteb(
        tmp_path, "SprintDuplicateQuestions", DatasetDict(test=Dataset.from_dict(columns)), model
    )
    ours = evaluate_pairs(read_pair_classification(tmp_path / "pairs.tsv"), model)
    assert 0.2 < ours.metrics["cosine_ap"] < 0.95
    assert ours.metrics == pytest.approx({"cosine_ap": theirs["cosine_ap"], "max_ap": theirs["max_ap"]}, abs=1e-6)
    assert samples.metric == "max_ap"  # mteb's main score, of whichever ranking is the best
    assert average_precision_score(samples.truth, samples.values) == pytest.approx(theirs["max_ap"], abs=1e-6)
    assert samples.truth == ours.samples.truth


def test_reranking(tmp_path: Path, model: WordHashes) -> None:
    from datasets import Dataset

    draw = random.Random(5)
    texts = write_texts(tmp_path / "texts.tsv", 20, 5)
    lines, queries, corpus = [], [], []
    judged: dict[str, dict[str, int]] = {}
    for number in range(1, 21):
        query, topic = texts[number]
        others = texts[30:]
        sides = [
            draw.sample([text for text, label in others if (label == topic) == right], count)
            for right, count in ((True, 3), (False, 7))
        ]
        sides[1].append(sides[0][0])  # the same text on both sides: a tie
        lines.append(json.dumps({"query": query, "positive": sides[0], "negative": sides[1]}))
        queries.append({"id": f"test_query{number}", "text": query})
        ids = {
            side: [f"{side}_test_query{number}_{place:05d}" for place in range(len(sides[grade]))]
            for grade, side in enumerate(("apositive", "negative"))
        }
        for keys, side in zip(ids.values(), sides, strict=True):
            corpus += [{"id": key, "title": "", "text": text} for key, text in zip(keys, side, strict=True)]
        judged[f"test_query{number}"] = {key: int(side == "apositive") for side, keys in ids.items() for key in keys}
    (tmp_path / "candidates.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "relevant_docs": judged}
    data["top_ranked"] = {query: list(documents) for query, documents in judged.items()}
    theirs, samples = score_by_mteb(tmp_path, "StackOverflowDupQuestions", {"default": {"test": data}}, model)
    ours = evaluate_reranking(read_reranking(tmp_path / "candidates.jsonl"), model)
    assert 0.3 < ours.metrics["map_at_1000"] < 0.95
    expected = {name: theirs[name] for name in ("map_at_1000", "ndcg_at_10", "mrr_at_10")}
    assert ours.metrics == pytest.approx(expected, abs=1e-5)  # which mteb rounds these to
    assert np.mean(ours.samples.values) == pytest.approx(ours.metrics["map_at_1000"], abs=1e-6)
    assert samples.ids == [f"test_query{number}" for number in range(1, 21)]
    assert_same_samples(samples, ours.samples)
