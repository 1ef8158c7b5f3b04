"""Columns of training rows, as sentence-transformers, Tevatron, FlagEmbedding and MS MARCO write them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.corpus.training_rows import Triple, read_rows
from llm2comp.corpus.triples import read_triples
from llm2comp.errors import CorpusError


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path, *rows: dict[str, Any], **options: Any) -> list[Triple]:
    return [triple for _, triple in read_rows(write(folder / "rows.jsonl", *rows), **options)]


class TestNegatives:
    @given(st.permutations(range(1, 13)), st.sampled_from(["negative_{}", "neg{}", "hard_negative-{}", "negatives_{}"]))
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_numbered_columns_are_read_by_number(
        self, tmp_path_factory: pytest.TempPathFactory, order: list[int], name: str
    ) -> None:
        row = {name.format(number): f"n{number}" for number in order}
        (triple,) = read(tmp_path_factory.mktemp("rows"), {**row, "anchor": "q", "positive": "p"})
        assert triple == ("q", ("p",), tuple(f"n{number}" for number in range(1, 13)))

    def test_three_mined_negatives_are_all_used(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "mined.jsonl",
            {"query": "q", "answer": "p", "negative_1": "a", "negative_2": "b", "negative_3": "c"},
        )
        (triples,) = read_triples(path, max_negatives=3)
        assert triples.negatives == 3
        assert list(triples.load()[0].values()) == ["q", "p", "a", "b", "c"]

    def test_an_absent_one_is_none(self, tmp_path: Path) -> None:
        (triple,) = read(tmp_path, {"anchor": "q", "positive": "p", "negative_1": None, "negative_2": "b"})
        assert triple.negatives == ("b",)

    def test_nan_is_as_absent_as_null(self, tmp_path: Path) -> None:
        row = {"query": "q", "positive": "p", "negative_1": float("nan"), "negative_2": "b", "label": float("nan")}
        assert read(tmp_path, row) == [("q", ("p",), ("b",))]

    def test_a_mined_positive_is_no_negative(self, tmp_path: Path) -> None:
        row = {"query": "q", "positive": "p", "negative_1": "p", "negative_2": "b"}
        assert read(tmp_path, row) == [("q", ("p",), ("b",))]

    def test_every_column_of_a_role_is_read(self, tmp_path: Path) -> None:
        row = {"query": "q", "positive": "p", "pos": ["r"], "negative": ["a"], "neg": "b", "negative_1": "c"}
        assert read(tmp_path, row) == [("q", ("p", "r"), ("a", "b", "c"))]

    def test_more_than_are_used_is_said_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        row = {"query": "q", "positive": "p", "negative": ["a", "b", "c"]}
        path = write(tmp_path / "rows.jsonl", row, row)
        with caplog.at_level(logging.WARNING):
            for triples in read_triples(path):
                triples.load()
        assert caplog.messages == [f"{path}: rows have up to 3 negatives, of which the first is used (max_negatives)"]


class TestColumnsThatAreNotUsed:
    def test_named_once_with_those_that_are(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        row = {"query_id": 1, "query": "q", "positive": "p", "topic": "sport", "nothing": None, "source": "mining's"}
        path = write(tmp_path / "rows.jsonl", row, row, {**row, "late": 2})
        with caplog.at_level(logging.WARNING):
            for triples in read_triples(path):
                triples.load()
        assert caplog.messages == [
            f"{path}:1: not used: query_id, topic; used: query, positive",
            f"{path}:3: not used: late; used: query, positive",
        ]

    @pytest.mark.parametrize(
        ("row", "unused"),
        [
            ({"label": "sport"}, "label"),
            ({"score": 0.7}, "score"),  # says nothing of whether it is a positive
            ({"scores": [0.9, 0.2], "negative_1": "n"}, "scores"),
            ({"anchor": "r"}, "anchor"),
            ({"pos_scores": [0.9]}, "pos_scores"),
        ],
    )
    def test_labels_and_scores_that_do_not_count(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, row: dict[str, Any], unused: str
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert [triple[:2] for triple in read(tmp_path, {"query": "q", "positive": "p", **row})] == [("q", ("p",))]
        (message,) = caplog.messages
        assert f"not used: {unused};" in message

    def test_nothing_is_said_of_a_file_that_is_used_whole(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            read(tmp_path, {"query": "q", "positive": "p", "negative": "n", "label": 1, "score": 1.0})
        assert not caplog.messages


ZEROS = [{"label": 0}, {"score": 0}, {"score": 0.0}, {"label": "0"}, {"label": False}, {"label": [0]}, {"score": -1}]


class TestLabels:
    @pytest.mark.parametrize("label", ZEROS, ids=str)
    def test_zero_is_never_a_positive(self, tmp_path: Path, label: dict[str, Any]) -> None:
        rows = {"query": "q", "positive": "p", "label": 1}, {"query": "q", "positive": "n", **label}
        with pytest.raises(
            CorpusError, match=r"rows\.jsonl:2: a label or score of 0 .*--negatives-from-label"
        ) as error:
            read(tmp_path, *rows)
        assert "\n" not in str(error.value)
        assert read(tmp_path, *rows, negatives_from_label=True) == [("q", ("p",), ("n",))]
        skipped: list[str] = []
        assert read(tmp_path, *rows, on_error="skip", on_skip=skipped.append) == [("q", ("p",), ())]
        assert len(skipped) == 1

    def test_negatives_come_before_and_after_and_once(self, tmp_path: Path) -> None:
        rows = [
            {"query": "q", "passage": "n1", "label": 0},
            {"query": "q", "passage": "p", "label": 1, "negative_1": "n2"},
            {"query": "q", "passage": "n2", "label": 0},
            {"query": "other", "passage": "x", "label": 1},
            {"query": "q", "passage": "p2", "label": 2},
            {"query": "q", "passage": "p2", "label": 0},  # contradicts the row before
        ]
        assert read(tmp_path, *rows, negatives_from_label=True) == [
            ("q", ("p",), ("n2", "n1")),
            ("other", ("x",), ()),
            ("q", ("p2",), ("n1", "n2")),
        ]

    def test_queries_without_a_positive_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = {"query": "q", "passage": "p", "label": 1}, {"query": "r", "passage": "n", "label": 0}
        with caplog.at_level(logging.WARNING):
            assert read(tmp_path, *rows, negatives_from_label=True) == [("q", ("p",), ())]
        assert caplog.messages == [f"{tmp_path / 'rows.jsonl'}: 1 queries have negatives only and are left out"]

    @pytest.mark.parametrize(
        "passages",
        [
            {"passages": ["p", "n", "m"], "labels": [1, 0, 0]},
            {"answer": ["p", "n", "m"], "labels": [1, 0, 0]},  # mine_hard_negatives, labeled-list
            {"passages": [{"text": "p", "label": 1}, {"text": "n", "label": 0}, {"text": "m", "label": 0}]},
            {"passages": {"passage_text": ["n", "p", "m"], "is_selected": [0, 1, 0]}},  # MS MARCO
        ],
    )
    def test_lists_with_labels(self, tmp_path: Path, passages: dict[str, Any]) -> None:
        row = {"query": "q", **passages}
        assert read(tmp_path, row, negatives_from_label=True) == [("q", ("p",), ("n", "m"))]
        with pytest.raises(CorpusError, match="label or score of 0"):
            read(tmp_path, row)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"passages": ["p", "n"]}, "without labels"),
            ({"passages": ["p", "n"], "labels": [1]}, "1 values, expected a number for each of 2 passages"),
            ({"passages": ["p", "n"], "labels": [1, None]}, "expected a number for each"),
            ({"passages": ["p", "n"], "scores": [0.9, 0.2]}, "does not say whether"),
            ({"passages": {"passage_text": ["n", "p"], "is_selected": [0]}}, "different lengths"),
        ],
    )
    def test_lists_that_do_not_say_which_are_positives(self, tmp_path: Path, row: dict[str, Any], message: str) -> None:
        with pytest.raises(CorpusError, match=f":1: .*{message}"):
            read(tmp_path, {"query": "q", **row}, negatives_from_label=True)


LABELS = [
    *("label", "labels", "score", "scores", "relevance", "relevant", "is_relevant", "is_selected", "is_duplicate"),
    *("is_positive", "relevance_score", "relevance_label", "gold_label", "rel", "qrel", "judgment", "judgement"),
    *("rating", "grade", "similarity", "pos_scores", "pos_score", "positive_label", "is_match", "correct", "is_answer"),
    *(
        "relevance_judgement",
        "relevance_judgment",
        "binary_label",
        "doc_label",
        "passage_relevance",
        "is_relevant_passage",
    ),
]
NOT_RELEVANT: list[Any] = [0, 0.0, -0.0, False, "0", "0.0", "false", "False", "no", [0], [False], ["0"], ["no"]]
NOT_RELEVANT += [
    "not_relevant",
    "Not relevant",
    "non-relevant",
    "irrelevant",
    "negative",
    "NEGATIVE",
    "unrelated",
    "neutral",
    "REFUTES",
    "Not enough info",
]


class TestNamesOfLabels:
    @given(
        st.sampled_from(LABELS),
        st.sampled_from([str, str.upper, str.title, lambda name: name.replace("_", ""), lambda n: n.replace("_", "-")]),
        st.sampled_from(NOT_RELEVANT),
        st.sampled_from(["positive", "passage", "Positive", "pos", "answer", "positive_texts"]),
        st.booleans(),
    )
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_what_a_row_calls_irrelevant_is_never_a_positive(
        self, tmp_path_factory: pytest.TempPathFactory, name: str, write_name: Any, value: Any, column: str, first: bool
    ) -> None:
        label, text = {write_name(name): value}, {"query": "q", column: "n"}
        rows = [{"query": "q", "positive": "p"}, {**label, **text} if first else {**text, **label}]
        folder = tmp_path_factory.mktemp("rows")
        with pytest.raises(CorpusError, match="label or score of 0"):
            read(folder, *rows)
        assert read(folder, *rows, negatives_from_label=True) == [("q", ("p",), ("n",))]
        inside = {"query": "q", "positive_passages": [{**label, "text": "n"}]}
        if not isinstance(value, list):
            assert read(folder, rows[0], inside, negatives_from_label=True) == [("q", ("p",), ("n",))]

    @pytest.mark.parametrize(
        "label",
        [{name: value} for name in ("is_negative", "irrelevant", "is_impossible") for value in (1, True, "yes")],
        ids=str,
    )
    def test_names_that_say_it_the_other_way_round(self, tmp_path: Path, label: dict[str, Any]) -> None:
        with pytest.raises(CorpusError, match="label or score of 0"):
            read(tmp_path, {"query": "q", "passage": "n", **label})
        assert read(tmp_path, {"query": "q", "passage": "p", **dict.fromkeys(label, 0)}) == [("q", ("p",), ())]

    @pytest.mark.parametrize(
        ("row", "positives", "negatives"),
        [
            ({"pos": ["a", "b"], "neg": ["c"], "pos_scores": [0.9, 0], "neg_scores": [0.1]}, ("a",), ("c", "b")),
            ({"pos": ["a", "b"], "neg": ["c"], "pos_scores": [-1.5, -0.2], "neg_scores": [0]}, ("a", "b"), ("c",)),
            ({"positive": ["a", "b"], "scores": [1, 0]}, ("a",), ("b",)),
            ({"positive": ["a", "b"], "negative": ["c"], "labels": [1, 0, 0]}, ("a",), ("c", "b")),
            ({"positive": "a", "negative": ["c", "d"], "scores": [3.5, 0, -1]}, ("a",), ("c", "d")),
            ({"passages": ["a", "b"], "is_selected": [True, False]}, ("a",), ("b",)),
            ({"passages": ["a", "b"], "relevance": ["relevant", "irrelevant"]}, ("a",), ("b",)),
        ],
        ids=str,
    )
    def test_lists_of_labels(
        self, tmp_path: Path, row: dict[str, Any], positives: tuple[str, ...], negatives: tuple[str, ...]
    ) -> None:
        assert read(tmp_path, {"query": "q", **row}, negatives_from_label=True) == [("q", positives, negatives)]

    @pytest.mark.parametrize(
        "row",
        [
            {"pos": ["a", "b"], "pos_scores": [0]},
            {"positive": "a", "negative": "b", "labels": [0, 1, 0]},
            {"queries": ["q", "r"], "passage": "a", "labels": [1, 0]},
            {"passage": "a", "relevance": "somewhere"},
        ],
        ids=str,
    )
    def test_labels_that_cannot_be_understood_are_refused(self, tmp_path: Path, row: dict[str, Any]) -> None:
        with pytest.raises(CorpusError, match=r":1: .*(expected a number for each|does not say whether)"):
            read(tmp_path, {"query": "q", **row} if "queries" not in row else row, negatives_from_label=True)

    @pytest.mark.parametrize(
        "label",
        [{"is_relevant": "Yes"}, {"relevance": 3}, {"esci_label": "E"}, {"label": "no 7"}, {"gold_label": "SUPPORTS"}],
    )
    def test_others_stay_positives(self, tmp_path: Path, label: dict[str, Any]) -> None:
        assert read(tmp_path, {"query": "q", "passage": "p", **label}) == [("q", ("p",), ())]


@pytest.mark.parametrize(
    "row",
    [
        {"Query": "q", "Positive": "p", "Negative_1": "a", "Negative_2": "b"},
        {"ANCHOR": "q", "POSITIVE": "p", "NEGATIVE": ["a", "b"]},
        {"query": "q", "pos": ["p"], "neg": ["a", "b"]},  # FlagEmbedding
        {"query": "q", "positive_texts": ["p"], "negative_texts": ["a", "b"]},
        {"query": "q", "positive": "p", "hard_negatives": ["a", "b"]},
        {"query": "q", "positive": "p", "HardNegative1": "a", "HardNegative2": "b"},
        {"query": "q", "positive_passages": [{"docid": "1", "text": "p"}], "negative_passages": ["a", {"text": "b"}]},
        {
            "question": "q",
            "positive_ctxs": [{"text": "p"}],
            "hard_negative_ctxs": [{"text": "a"}, {"text": "b"}],
        },  # DPR
        {"Question": "q", "Answer": "p", "negative-2": "b", "negative-1": "a"},
    ],
    ids=str,
)
def test_names_of_common_data_sets(tmp_path: Path, row: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, row) == [("q", ("p",), ("a", "b"))]
    assert not caplog.messages


class TestLists:
    def test_several_queries_of_one_passage(self, tmp_path: Path) -> None:
        for name in ("query", "queries", "anchor"):
            assert read(tmp_path, {name: ["a", "b"], "passage": "p", "negative": ["n"]}) == [
                ("a", ("p",), ("n",)),
                ("b", ("p",), ("n",)),
            ]

    def test_which_belongs_to_which_has_to_be_said(self, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match="several queries and several positives: give one row for each query"):
            read(tmp_path, {"query": ["a", "b"], "positive": ["p", "r"]})


def test_what_mine_hard_negatives_writes(tmp_path: Path) -> None:
    """All four formats of the real function, on an encoder that ranks by the first letter."""
    import numpy as np
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    class Letters(SentenceTransformer):
        def __init__(self) -> None:
            super().__init__(modules=[__import__("torch").nn.Identity()], device="cpu")

        def encode(self, texts: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
            angles = np.array([ord(text[0]) / 100 for text in texts])
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

        encode_query = encode_document = encode  # type: ignore[assignment]

    data = Dataset.from_dict({"question": list("abcdef"), "answer": [f"{letter}!" for letter in "abcdef"]})
    for kind in ("triplet", "n-tuple", "labeled-pair", "labeled-list"):
        mined = mine_hard_negatives(data, Letters(), num_negatives=3, output_format=kind, verbose=False)
        path = write(tmp_path / f"{kind}.jsonl", *mined.to_list())
        triples = [triple for _, triple in read_rows(path, negatives_from_label=True)]
        assert {triple.query for triple in triples} == set("abcdef")
        assert {(triple.query, *triple.positives) for triple in triples} == {
            (letter, f"{letter}!") for letter in "abcdef"
        }
        negatives = {len(triple.negatives) for triple in triples}
        assert negatives == ({1} if kind == "triplet" else {3}), kind
