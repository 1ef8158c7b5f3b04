"""The Python documentation task: what is in the pool, and which summaries are queries."""

from typing import Any

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out, read_python_docs, split_summary
from llm2comp.errors import CorpusError
from llm2comp_benchmarks import evaluate, read_python_docs_task
from llm2comp_benchmarks.tasks.python_docs import build_task

LONG = "This body has letters enough to stand in the pool, whatever else is said about it, and it talks of"


def held_out(start: str) -> str:
    """A summary that begins so and falls on the held-out side."""
    return next(summary for summary in (f"{start} number {n}." for n in range(1000)) if is_held_out(summary))


def trained(start: str) -> str:
    return next(summary for summary in (f"{start} number {n}." for n in range(1000)) if not is_held_out(summary))


def documented(name: str, summary: str, body: str, kind: str = "function") -> Document:
    return Document(name, f"{name}()", f"{summary}\n\n{body}", {"kind": kind})


def test_names_are_removed_and_only_held_out_functions_and_classes_with_a_body_are_in_the_pool() -> None:
    summary = held_out("Open the gate by hand")
    task = build_task(
        [
            documented(
                "garden.gate.unlatch",
                held_out("To unlatch is to open the gate"),
                f"{LONG} how unlatch works in garden walls.",
            ),
            documented("garden.Wall", summary, f"{LONG} walls.", "class"),
            documented("garden", held_out("Gardens and walls and gates"), f"{LONG} gardens.", "module"),
            documented("garden.short", held_out("A short body in this one"), "Too short."),
            documented("garden.none", held_out("No body at all in this one"), ""),
            documented("garden.known", trained("Known to the model"), f"{LONG} knowledge."),
        ]
    )
    bodies = {document.id: document.content for document in task.documents()}
    assert bodies == {"garden.gate.unlatch": f"{LONG} how works in walls.", "garden.Wall": f"{LONG} walls."}
    assert task.queries["garden.gate.unlatch"].startswith("To is to open the number")
    assert task.queries["garden.Wall"] == summary
    assert task.qrels == {name: {name: 1} for name in bodies}


def test_a_body_that_may_have_been_trained_on_is_out_and_a_body_is_in_once() -> None:
    task = build_task(
        [
            documented("a.one", held_out("The first of the twins"), f"{LONG} twins, of one!"),
            documented("b.two", held_out("The second of the twins"), f"{LONG} TWINS of one."),
            documented("c.three", held_out("Seen elsewhere before this"), f"{LONG} what three said."),
            documented("d.three", trained("Said by another three"), f"{LONG} what three said."),
            documented("e.four", held_out("Seen with its name only"), f"{LONG} four things."),
            documented("f.five", trained("The same with another name"), f"{LONG} five things."),
        ]
    )
    assert [document.id for document in task.documents()] == ["a.one"]


def test_a_summary_shared_or_empty_is_not_asked_but_its_body_is_searched() -> None:
    shared = held_out("Fit the model to the data")
    bare = next(name for name in (f"name{n}" for n in range(1000)) if is_held_out(f"Return {name}."))
    task = build_task(
        [
            documented("a.f1", shared, f"{LONG} the first."),
            documented("b.f2", shared.upper(), f"{LONG} the second one."),
            documented(f"c.{bare}", f"Return {bare}.", f"{LONG} the third one there."),
            documented("d.f4", held_out("What is left to ask"), f"{LONG} the fourth."),
        ]
    )
    assert list(task.queries) == ["d.f4"]
    assert task.details["documents"] == 4
    assert task.details["possible_queries"] == 1


def test_the_choice_of_queries_depends_on_neither_order_nor_the_rest() -> None:
    documents = [
        documented(f"m.f{n}", held_out(f"Summary of case {n} with words"), f"{LONG} case {n}.") for n in range(20)
    ]
    few = build_task(documents, queries=5)
    assert few.queries == build_task(documents[::-1], queries=5).queries
    assert few.details["pool_fingerprint"] == build_task(documents[::-1]).details["pool_fingerprint"]
    left = [document for document in documents if document.id != next(iter(few.queries))]
    assert set(list(few.queries)[1:]) < set(build_task(left, queries=5).queries)
    assert build_task(left).details["pool_fingerprint"] != few.details["pool_fingerprint"]


def test_nothing_to_ask() -> None:
    with pytest.raises(CorpusError, match="python-docs: no question can be made"):
        build_task([])


def test_the_standard_library(encoder: Any) -> None:
    """Nothing of the part for training is in the pool; word overlap alone answers some of the questions, not all."""
    originals = {document.id: document for document in read_python_docs()}
    task = read_python_docs_task("standard")
    pool = [originals[document.id] for document in task.documents()]
    assert all(is_held_out(document.text) for document in pool)
    trained_on = {split_summary(document.text)[1] for document in originals.values() if not is_held_out(document.text)}
    assert trained_on.isdisjoint(split_summary(document.text)[1] for document in pool)
    assert 100 < len(task.queries) <= len(pool)
    assert 0.1 < evaluate(encoder, task).metrics["ndcg_at_10"] < 0.9  # by chance: 0.02
