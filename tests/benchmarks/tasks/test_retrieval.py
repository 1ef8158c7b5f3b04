"""BEIR folders: read and checked, searched exactly, scored."""

import gzip
import json
from collections.abc import Callable
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, LLM2CompError
from llm2comp_benchmarks import evaluate, evaluate_run, read_beir
from llm2comp_benchmarks.tasks import exact_search as search
from llm2comp_benchmarks.tasks.retrieval import IdenticalIds


def test_model_on_a_folder(fruit: Path, encoder: Any) -> None:
    """Both best documents come first; d1, relevant to q2, shares no word with it and ties with d2 and d3 behind d4."""
    result = evaluate(encoder, read_beir(fruit))
    assert result.task == "tiny"
    assert result.per_query["q1"] == {"ndcg_at_10": 1, "map_at_1000": 1, "recall_at_100": 1, "mrr_at_10": 1}
    ndcg = (2 + 1 / log2(5)) / (2 + 1 / log2(3))
    assert result.per_query["q2"] == pytest.approx(
        {"ndcg_at_10": ndcg, "map_at_1000": (1 + 2 / 4) / 2, "recall_at_100": 1, "mrr_at_10": 1}
    )
    assert result.metrics["ndcg_at_10"] == pytest.approx((1 + ndcg) / 2)
    assert {name: result.details[name] for name in ("split", "queries", "documents", "judgements")} == {
        "split": "test",
        "queries": 2,
        "documents": 4,
        "judgements": 4,
    }
    assert encoder.queries == ["long yellow", "blue plum"]  # queries without judgements cost nothing
    assert set(result.run["q1"]) == {"d1", "d2", "d3", "d4"}


def test_compressed_folder_gives_the_same(fruit: Path, encoder: Any) -> None:
    plain = evaluate(encoder, read_beir(fruit))
    for file in (fruit / "corpus.jsonl", fruit / "queries.jsonl", fruit / "qrels" / "test.tsv"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert evaluate(encoder, read_beir(fruit)).per_query == plain.per_query


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_search_equals_sorting_all_scores(monkeypatch: pytest.MonkeyPatch, similarity: str, k: int) -> None:
    """Blocks of seven documents and of three queries, so that results are merged across both."""
    monkeypatch.setattr(search, "_BLOCK", 7)
    monkeypatch.setattr(search, "_QUERIES", 3)
    random = np.random.default_rng(0)
    vectors = {
        text: random.standard_normal(8).astype(np.float32)
        for text in [f"d{n}" for n in range(30)] + [f"q{n}" for n in range(8)]
    }

    class Fixed:
        similarity_fn_name = similarity

        def encode_document(self, inputs: list[str], /, **_: Any) -> Any:
            return np.stack([vectors[text] for text in inputs])

        encode_query = encode_document

    run = search.exact_search(
        Fixed(), (Document(f"id{n}", "", f"d{n}") for n in range(30)), {f"q{n}": f"q{n}" for n in range(8)}, k=k
    )
    for query, ranking in run.items():
        scores = {f"id{n}": float(vectors[query] @ vectors[f"d{n}"]) for n in range(30)}
        if similarity == "cosine":
            scores = {
                f"id{n}": scores[f"id{n}"] / float(np.linalg.norm(vectors[query]) * np.linalg.norm(vectors[f"d{n}"]))
                for n in range(30)
            }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:k]
        assert sorted(ranking, key=ranking.__getitem__, reverse=True) == best
        assert [ranking[document] for document in best] == pytest.approx(
            [scores[document] for document in best], abs=1e-5
        )


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("auto", {"same": 1, "number": 1 / 2}),
        ("drop", {"same": 1, "number": 1}),
        ("keep", {"same": 1 / 2, "number": 1 / 2}),
    ],
)
def test_documents_with_the_id_of_the_query(
    write_beir: Callable[..., Path], rule: IdenticalIds, expected: dict[str, float]
) -> None:
    """Query `same` is a document of the corpus; query `number` only shares its id with another text."""
    documents = [
        {"_id": "same", "text": "Should cats  vote?"},
        {"_id": "number", "text": "dogs of the world"},
        {"_id": "answer", "text": "no"},
    ]
    queries = [{"_id": "same", "text": "should cats vote?"}, {"_id": "number", "text": "what do dogs eat"}]
    task = read_beir(
        write_beir(documents, queries, [("same", "answer", 1), ("number", "answer", 1)]), identical_ids=rule
    )
    result = evaluate_run(task, {query: {query: 2.0, "answer": 1.0} for query in task.queries})
    assert {query: scores["mrr_at_10"] for query, scores in result.per_query.items()} == expected
    assert result.details["identical_ids"] == {
        "rule": rule,
        "shared": 2,
        "dropped": {"auto": 1, "drop": 2, "keep": 0}[rule],
    }


def test_a_document_judged_relevant_to_its_own_query_stays(write_beir: Callable[..., Path]) -> None:
    folder = write_beir(
        [{"_id": "1", "text": "a"}, {"_id": "2", "text": "b"}], [{"_id": "1", "text": "a"}], [("1", "1", 1)]
    )
    assert evaluate_run(read_beir(folder), {"1": {"1": 1.0}}).metrics["mrr_at_10"] == 1


def test_queries_missing_from_a_run_are_counted(fruit: Path) -> None:
    result = evaluate_run(read_beir(fruit), {"q1": {"d2": 1.0}})
    assert result.metrics["ndcg_at_10"] == 1 / 2
    assert result.details["queries_missing_from_run"] == 1


def replace(file: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: (folder / "qrels/test.tsv").rename(folder / "qrels/dev.tsv"),
            r"qrels/test\.tsv: no such file; there is dev; choose with --split",
        ),
        (lambda folder: (folder / "qrels/test.tsv").unlink(), r"qrels/test\.tsv: no such file; expected judgements"),
        (
            lambda folder: (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n"),
            r"qrels/test\.tsv: no judgement",
        ),
        (lambda folder: (folder / "queries.jsonl").unlink(), r"tiny: no queries\.jsonl"),
        (lambda folder: (folder / "corpus.jsonl").unlink(), "tiny: a folder without corpus.jsonl"),
        (
            lambda folder: (folder / "qrels/test.tsv").write_text("q9\td2\t1\nq8\td2\t1\n"),
            r"test\.tsv: none of the 2 judged queries is in the queries file; judged is 'q9', a query is 'q1'",
        ),
        (replace("qrels/test.tsv", "d2\t1", "d2\thigh"), r"test\.tsv:2: "),
        (replace("corpus.jsonl", '"d4"', '"d1"'), r"corpus\.jsonl:4: .*d1"),
        (replace("corpus.jsonl", '{"_id": "d3"', '{"_id": "d3'), r"corpus\.jsonl:3: "),
        (replace("queries.jsonl", '"q2"', '"q1"'), r"queries\.jsonl:2: .*q1"),
    ],
)
def test_bad_folders_are_refused_before_any_encoding(
    fruit: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(fruit)
    with pytest.raises(CorpusError, match=message):
        read_beir(fruit)


QRELS = {"q1": {"d1": 1, "d9": 2}, "q2": {"d2": 1}, "q9": {"d1": 1}}


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".txt"])
def test_judgements_that_name_what_is_not_there(
    tmp_path: Path, fruit: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    """The absent d9 stays in the ideal ranking; q9, which has no text, is left out."""
    (fruit / "qrels/test.tsv").unlink()
    if suffix == ".csv":  # a query without a text is as one that is not there
        with (fruit / "queries.jsonl").open("a") as file:
            file.write('{"_id": "q9", "text": null}\n')
    rows = [(query, document, grade) for query, grades in QRELS.items() for document, grade in grades.items()]
    lines = {
        ".tsv": ["query-id\tcorpus-id\tscore"] + [f"{query}\t{name}\t{grade}" for query, name, grade in rows],
        ".csv": ["query-id,corpus-id,score"] + [f"{query},{name},{grade}" for query, name, grade in rows],
        ".jsonl": [json.dumps({"query-id": query, "corpus-id": name, "score": grade}) for query, name, grade in rows],
        ".txt": [f"{query}  0\t{name} {grade}" for query, name, grade in rows],
    }
    (fruit / f"qrels/test{suffix}").write_text("\n".join(lines[suffix]))
    task = read_beir(fruit)
    [warning] = caplog.messages
    assert warning == (
        f"{fruit}/qrels/test{suffix}: 1 of 3 judged queries have no text in the queries file and are left out; 1 of 3 "
        "documents judged relevant are not in the corpus and stay in the ideal ranking, the first is 'd9'"
    )
    assert list(task.queries) == ["q1", "q2"]
    result = evaluate_run(task, {"q1": {"d1": 2.0, "d3": 1.0}, "q2": {"d3": 2.0, "d2": 1.0}})
    ndcg = (1 / log2(2)) / (2 / log2(2) + 1 / log2(3))  # gain over that of d9 before d1
    assert result.per_query["q1"] == pytest.approx(
        {"ndcg_at_10": ndcg, "map_at_1000": 0.5, "recall_at_100": 0.5, "mrr_at_10": 1}
    )
    assert result.metrics["ndcg_at_10"] == pytest.approx((ndcg + 1 / log2(3)) / 2)
    assert (result.details["queries_without_text"], result.details["relevant_documents_absent"]) == (1, 1)


@pytest.mark.parametrize(("given", "judged"), [("1", "1.0"), ("1.0", "1")])
def test_whole_numbers_of_pandas_match_on_both_sides(tmp_path: Path, given: str, judged: str) -> None:
    write = {"corpus.csv": f"id,text\n{given},a\n2,b\n", "queries.csv": f"id,text\n{given},a\n2,b\n"}
    for name, text in write.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.csv").write_text(f"qid,docid,score\n{judged},{judged},1.0\n")
    assert read_beir(tmp_path).qrels == {given: {given: 1}}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_runs_with_whole_numbers_of_pandas(tmp_path: Path, suffix: str) -> None:
    """The run names 1.0, as a tool does that reads CSV as text; in JSON, the user gave this id as a string."""
    rows = {
        "csv": "id,text\n1.0,a\n2.0,b\n",
        "jsonl": '{"id": "1.0", "text": "a"}\n{"id": "2.0", "text": "b"}\n',
    }
    for name in ("corpus", "queries"):
        (tmp_path / f"{name}.{suffix}").write_text(rows[suffix])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1.0\t2.0\t1\n")
    task = read_beir(tmp_path)
    name, document = ("1", "2") if suffix == "csv" else ("1.0", "2.0")
    assert task.qrels == {name: {document: 1}}
    assert [document.id for document in task.documents()] == (["1", "2"] if suffix == "csv" else ["1.0", "2.0"])
    assert evaluate_run(task, {"1.0": {"1.0": 1.0, "2.0": 2.0}}).metrics["mrr_at_10"] == 1


def test_a_folder_of_files_without_header_lines(tmp_path: Path) -> None:
    (tmp_path / "corpus.tsv").write_text('d1\t"one\nd2\ttwo"\n')
    (tmp_path / "queries.tsv").write_text("q1\tone?\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.txt").write_text("q1 0 d1 1\n")
    for header in (None, False):
        task = read_beir(tmp_path, header=header)
        assert [document.text for document in task.documents()] == ['"one', 'two"']
        assert task.queries == {"q1": "one?"}


def test_a_missing_document_judged_irrelevant_does_no_harm(fruit: Path) -> None:
    replace("qrels/test.tsv", "q2\td3\t0", "q2\td9\t0")(fruit)
    assert read_beir(fruit).details["judgements"] == 4


def test_a_run_of_other_queries_is_refused(fruit: Path) -> None:
    with pytest.raises(CorpusError, match="tiny: the run ranks documents for none of the 2 judged queries"):
        evaluate_run(read_beir(fruit), {"elsewhere": {"d1": 1.0}})


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((4, 3), np.nan), "not finite for the text"),
        (np.zeros((1, 3)), r"of shape \(1, 3\), expected \(2, dimension\)"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(fruit: Path, vectors: Any, message: str) -> None:
    class Broken:
        def encode_document(self, inputs: list[str], /, **_: Any) -> Any:
            return vectors[: len(inputs)]

        encode_query = encode_document

    with pytest.raises(LLM2CompError, match=message):
        evaluate(Broken(), read_beir(fruit))
