"""Derived pairs: the right texts are paired, held-out text stays out, and output appears complete or not at all."""

import gzip
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out
from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.triples import read_triples
from llm2comp.errors import CorpusError, SettingsError
from llm2comp.training.pairs.articles import article_pairs
from llm2comp.training.pairs.derive import PAIR_LIMITS, Pair, PairSettings, derive_pairs
from llm2comp.training.pairs.docstrings import docstring_pairs
from llm2comp.training.pairs.questions import ask
from llm2comp.training.pairs.ready import is_heldout, ready_pairs
from llm2comp.training.pairs.sentences import split_sentences
from tests.paths import SHARED

LEAD = (
    "The Marlow Bridge is a suspension bridge over the Thames in Buckinghamshire. It was designed by William Tierney "
    "Clark between 1829 and 1832. "
    "The wooden bridge that stood there before had collapsed in 1828. Visitors come from all over the world for the "
    "view from its middle."
)
HISTORY = (
    "Marlow had a bridge as early as the reign of Edward III. The first stone of the present bridge was laid in 1829. "
    "Workers from three counties finished it in little more than two years. The opening was celebrated with fireworks "
    "and a dinner for the poor."
)
TRAFFIC = (
    "Lorries heavier than three tonnes may not use the crossing since a crash closed it in 2016. Concrete blocks at "
    "both ends keep wide cars out. "
    "Cyclists and walkers have a path of their own on the western side. About nine thousand cars pass on an ordinary "
    "working day."
)
ARTICLE = Document("42", "Marlow Bridge", f"{LEAD}\nHistory.\n{HISTORY}\nTraffic.\n{TRAFFIC}\nReferences.\n{TRAFFIC}")
PLAIN: dict[str, Any] = {"lowercase": 0, "unpunctuated": 0, "drop_word": 0, "synonyms": 0}


def plain_settings(**changes: Any) -> PairSettings:
    return PairSettings(**{"articles": ("unused",), **PLAIN, **changes})


def pairs_of(kind: str, **changes: Any) -> list[Pair]:
    return [pair for pair in article_pairs(ARTICLE, plain_settings(**changes)) if pair.kind == kind]


def write_corpus(path: Path, *documents: Document) -> str:
    path.write_text(
        "".join(json.dumps({"id": each.id, "title": each.title, "text": each.text}) + "\n" for each in documents)
    )
    return str(path)


def read_pairs(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for path in sorted(folder.glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            yield path.name.removesuffix(".jsonl.gz"), json.loads(line)


def test_sentence_is_taken_out_of_its_passage_unless_kept() -> None:
    removed = pairs_of("sentence-rest", keep_sentence=0.0, titled=0.0)
    assert len(removed) == 4
    for pair in removed:
        (origin,) = [text for text in (LEAD, HISTORY, TRAFFIC) if pair.query.removeprefix("Marlow Bridge ") in text]
        assert pair.query not in pair.positive
        assert all(sentence in origin for sentence in split_sentences(pair.positive))
    for pair in pairs_of("sentence-rest", keep_sentence=1.0):
        assert pair.query.removeprefix("Marlow Bridge ") in pair.positive


def test_negative_is_another_passage_under_the_same_title() -> None:
    questions = pairs_of("question-passage", titled=1.0)
    assert questions
    for pair in questions:
        assert pair.negative is not None
        assert pair.positive.startswith("Marlow Bridge\n")
        assert pair.negative.startswith("Marlow Bridge\n")
        positive, negative = (text.removeprefix("Marlow Bridge\n") for text in (pair.positive, pair.negative))
        assert set(split_sentences(positive)).isdisjoint(split_sentences(negative))


def test_heading_stands_for_its_own_section_and_sources_are_no_section() -> None:
    pairs = {pair.query: pair for pair in pairs_of("heading-section", titled=0.0)}
    assert len(pairs) == 2
    for query, pair in pairs.items():
        section, other = (HISTORY, LEAD + TRAFFIC) if "history" in query else (TRAFFIC, LEAD + HISTORY)
        assert "Marlow Bridge" in query
        assert pair.positive in section
        assert pair.negative
        assert pair.negative in other


def test_title_asks_for_the_lead() -> None:
    (pair,) = pairs_of("title-lead")
    assert "Marlow Bridge" in pair.query
    assert LEAD.startswith(pair.positive)
    assert pair.source == "42"


def test_limits_and_lengths() -> None:
    pairs = list(
        article_pairs(
            ARTICLE,
            plain_settings(
                limits={"sentence-rest": 2, "question-passage": 0}, passage_words=(10, 20), query_words=(2, 6)
            ),
        )
    )
    kinds = [pair.kind for pair in pairs]
    assert kinds.count("sentence-rest") == 2
    assert "question-passage" not in kinds
    assert all(kinds.count(kind) <= limit for kind, limit in PAIR_LIMITS.items())
    for pair in pairs:
        assert len(pair.query.split()) <= 6
        if pair.kind != "sentence-view":
            assert len(pair.positive.removeprefix("Marlow Bridge\n").split()) <= 20


@pytest.mark.parametrize(
    ("statement", "question"),
    [
        ("The song was written by Anna Held in 1912.", "Who was the song written by?"),
        ("He was born in Oslo.", "Where was Ole Bull born?"),
        ("In March 1875, the company opened a second factory.", "When did the company open a second factory?"),
        ("The fleet carried 300 soldiers to the island.", "How many soldiers did the fleet carry to the island?"),
        ("The bridge was closed because the river had risen.", "Why was the bridge closed?"),
        (
            "Marie Curie discovered polonium in her laboratory at Paris.",
            "Who discovered polonium in her laboratory at Paris?",
        ),
    ],
)
def test_question_asks_for_a_part_of_the_statement(statement: str, question: str) -> None:
    questions = {ask(statement, "Ole Bull", random.Random(seed)) for seed in range(60)}
    assert question in questions


@pytest.mark.parametrize(
    "sentence",
    ["What a day!", "When the war ended in 1918, everything changed.", "", "Running was difficult in the snow there."],
)
def test_no_question_where_no_rule_is_sure(sentence: str) -> None:
    assert ask(sentence, "Topic", random.Random(0)) is None


def test_sentences_do_not_break_at_abbreviations() -> None:
    text = 'Dr. J. Smith met Mr. Lee at 5 p.m. in St. Ives. "It rained," he said. They left.'
    assert split_sentences(text) == [
        "Dr. J. Smith met Mr. Lee at 5 p.m. in St. Ives.",
        '"It rained," he said.',
        "They left.",
    ]


def docstring(name: str, summary: str, body: str) -> Document:
    return Document(f"pkg.{name}", f"pkg.{name}()", f"{summary}\n\n{body}")


def held_out_summaries() -> tuple[str, str]:
    """A summary that is measured on, and one that may be trained on, as the package itself divides them."""
    summaries = [f"Return the colour number {number} of the given table." for number in range(200)]
    return next(text for text in summaries if is_held_out(text)), next(
        text for text in summaries if not is_held_out(text)
    )


def test_held_out_docstrings_and_their_bodies_stay_out() -> None:
    held_out, free = held_out_summaries()
    body = "The table is searched from the top, and the first row whose key fits is taken."
    other = "Colours are counted from zero, negative numbers from the end of the given table."
    documents = [
        docstring("first", free, body),
        docstring("measured", held_out, body),
        docstring("second", free, other),
    ]
    pairs = list(docstring_pairs(documents, plain_settings()))
    assert {pair.source for pair in pairs} == {"pkg.second"}
    assert {"summary-body", "howto-docstring"} <= {pair.kind for pair in pairs}
    assert list(docstring_pairs(documents[:1], plain_settings())), "without the held-out one, the first may be used"


def test_names_are_removed_from_the_body_a_summary_asks_for() -> None:
    _, free = held_out_summaries()
    document = docstring(
        "pick_colour",
        free,
        "Call pick_colour with a table of rows. Use pick_colour again with another table to compare.",
    )
    (pair,) = [pair for pair in docstring_pairs([document], plain_settings()) if pair.kind == "summary-body"]
    assert pair.query == free
    assert "pick_colour" not in pair.positive
    assert "to compare" in pair.positive


def test_files_hold_what_is_counted_and_are_the_same_again(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", ARTICLE, Document("43", "Copy of it", ARTICLE.text))
    settings = PairSettings(articles=(corpus,), seed=3)
    counts = derive_pairs(settings, tmp_path / "out")
    rows = list(read_pairs(tmp_path / "out"))
    assert {kind: sum(1 for name, _ in rows if name == kind) for kind in counts} == counts
    assert len({(kind, row["query"], row["positive"]) for kind, row in rows}) == len(rows)
    assert {row["source"] for _, row in rows} == {"42", "43"}
    assert json.loads((tmp_path / "out" / "pairs.json").read_text())["counts"] == counts
    derive_pairs(settings, tmp_path / "again")
    for path in (tmp_path / "out").glob("*.gz"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert sum(triples.pairs for triples in read_triples(tmp_path / "out")) == sum(counts.values())


def test_pairs_of_one_document_do_not_stand_together(tmp_path: Path) -> None:
    documents = [
        Document(str(number), f"Bridge {number}", ARTICLE.text.replace("Marlow", f"Town {number}"))
        for number in range(40)
    ]
    derive_pairs(PairSettings(articles=(write_corpus(tmp_path / "corpus.jsonl", *documents),)), tmp_path / "out")
    sources = [row["source"] for kind, row in read_pairs(tmp_path / "out") if kind == "sentence-rest"]
    together = sum(left == right for left, right in zip(sources, sources[1:], strict=False))
    assert len(sources) > 100
    assert together < len(sources) // 10


def test_evaluation_texts_are_excluded(tmp_path: Path) -> None:
    sentence = "Concrete blocks at both ends keep wide cars out."
    corpus = write_corpus(tmp_path / "corpus.jsonl", ARTICLE)
    (tmp_path / "eval.tsv").write_text(f"sentence1\tsentence2\tscore\nsomething else\t{sentence.upper()[:-1]}\t3.0\n")
    everything = {"sentence-rest": 50, "sentence-next": 50, "sentence-view": 50}
    for name, excluded, expected in (("with", (), True), ("without", (str(tmp_path / "eval.tsv"),), False)):
        derive_pairs(plain_settings(articles=(corpus,), limits=everything, excluded=excluded), tmp_path / name)
        texts = {text for _, row in read_pairs(tmp_path / name) for key, text in row.items() if key != "source"}
        assert (sentence in texts) == expected


def test_a_run_of_thirteen_words_of_an_evaluation_text_is_refused_and_counted(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(40)]
    (tmp_path / "eval.jsonl").write_text(json.dumps({"_id": "1", "text": " ".join(words)}) + "\n")
    near, far = " ".join(["before", *words[5:18], "after"]), " ".join(["before", *words[5:17], "after"])
    rows = [{"query": "near", "positive": near}, {"query": "far", "positive": far.title()}]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = PairSettings(ready=(str(tmp_path / "faq.jsonl"),), excluded=(str(tmp_path / "eval.jsonl"),))
    derive_pairs(settings, tmp_path / "out")
    assert [row["query"] for _, row in read_pairs(tmp_path / "out")] == ["far"]
    assert json.loads((tmp_path / "out" / "pairs.json").read_text())["refused"] == {"faq": 1}


def test_held_out_rows_of_ready_files_make_no_pair(tmp_path: Path) -> None:
    rows = [{"query": f"Question {number}?", "positive": f"answer {number}"} for number in range(500)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    used = {}
    for share in (0.0, 0.1, 0.3, 1.0):
        pairs = ready_pairs(tmp_path / "faq.jsonl", PairSettings(ready=("unused",), heldout_share=share))
        used[share] = {pair.query for pair in pairs}
    assert len(used[0.0]) == 500
    assert 425 < len(used[0.1]) < 475
    assert used[0.3] < used[0.1]
    assert not used[1.0]
    assert is_heldout("question 7", 0.3) == is_heldout("Question 7?", 0.3) == ("Question 7?" not in used[0.3])


def test_ready_sentences_serve_in_both_directions_and_reworded(tmp_path: Path) -> None:
    row = {
        "query": "a man in a big hat started to play the piano",
        "positive": "a man plays music",
        "negative": "nobody plays",
    }
    (tmp_path / "snli.jsonl").write_text(json.dumps(row) + "\n")
    derive_pairs(PairSettings(ready=(str(tmp_path / "snli.jsonl"),)), tmp_path / "out")
    rows = list(read_pairs(tmp_path / "out"))
    directions = {(row["query"], row["positive"], row["negative"]) for kind, row in rows if kind == "snli"}
    assert directions == {
        (row["query"], row["positive"], row["negative"]),
        (row["positive"], row["query"], row["negative"]),
    }
    assert [made["positive"] for kind, made in rows if kind == "snli-view"] == [row["query"]]


def test_ready_answers_give_claims_and_boilerplate_is_left_out(tmp_path: Path) -> None:
    abstract = " ".join(
        f"Patient group number {number} was treated with another dose of the same drug for weeks."
        for number in range(8)
    )
    conclusion = "The highest dose of the drug shortened the illness by two days."
    rows = [{"query": "Does the dose matter?", "positive": text} for text in (abstract, conclusion)]
    rows += [
        {"query": f"What is illness {number}?", "positive": f"These resources address the illness {number} and others."}
        for number in range(30)
    ]
    (tmp_path / "study.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    derive_pairs(PairSettings(ready=(str(tmp_path / "study.jsonl"),)), tmp_path / "out")
    pairs = list(read_pairs(tmp_path / "out"))
    assert [row["query"] for kind, row in pairs if kind == "study-claim"] == [conclusion]
    assert {row["query"] for kind, row in pairs if kind == "study"} == {"Does the dose matter?"}
    assert any(kind == "study-sentence" for kind, _ in pairs)


def test_a_text_is_never_paired_with_itself(tmp_path: Path) -> None:
    rows = [{"query": "Is it so?", "positive": "is it so"}, {"query": "Is it so?", "positive": "It is so, yes."}]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert derive_pairs(plain_settings(articles=(), ready=(str(tmp_path / "same.jsonl"),)), tmp_path / "out") == {
        "same": 1
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"articles": ()}, "need a corpus"),
        ({"limits": {"titel-lead": 1}}, "unknown kinds titel-lead"),
        ({"limits": {"title-lead": -1}}, "0 or more"),
        ({"passage_words": (80, 30)}, r"passage_words is \(80, 30\)"),
        ({"query_words": (0, 30)}, "query_words"),
        ({"titled": 1.5}, "titled is 1.5"),
    ],
)
def test_contradictions_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plain_settings(**changes)


def test_output_is_never_overwritten_or_left_half_written(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    write_corpus(corpus, ARTICLE)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="exists already"):
        derive_pairs(PairSettings(articles=(str(corpus),)), taken)
    with corpus.open("a") as file:
        file.write("{not json\n")
    with pytest.raises(CorpusError, match=r"corpus\.jsonl:2"):
        derive_pairs(PairSettings(articles=(str(corpus),)), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "taken"]


def test_real_articles_give_every_kind() -> None:
    articles = SHARED / "data" / "wiki" / "articles.jsonl.xz"
    if not articles.exists():
        pytest.skip("the Wikipedia articles are not beside the repository")
    settings = PairSettings(articles=(str(articles),))
    pairs = [pair for document in islice(read_corpus(articles), 150) for pair in article_pairs(document, settings)]
    other_kinds = {
        kind for kind in PAIR_LIMITS if kind.endswith(("-docstring", "-body", "-description", "-definition"))
    }
    assert {pair.kind for pair in pairs} == set(PAIR_LIMITS) - other_kinds
    assert len(pairs) > 150 * 12
    assert all(pair.query.strip() and pair.positive.strip() and pair.query != pair.positive for pair in pairs)
