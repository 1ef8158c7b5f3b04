"""Plain text and code: paragraphs, sentences in several languages, words, overlap; words or characters are tokens."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.split.splitter import Splitter
from tests.corpus.split.conftest import CharacterTokenizer, WordTokenizer

Texts = Callable[..., list[str]]
PLAIN, CODE = Markup.PLAIN, Markup.CODE


def test_pieces_end_at_paragraphs_before_sentences(texts: Texts) -> None:
    text = "One two. Three four.\n\nFive six. Seven eight.\n\nNine ten."
    assert texts(text, 7, markup=PLAIN) == ["One two. Three four.", "Five six. Seven eight.\n\nNine ten."]
    assert texts(text, 3, markup=PLAIN) == ["One two.", "Three four.", "Five six.", "Seven eight.", "Nine ten."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He saw Mr. Smith. It cost 3.5 dollars! Yes.", ["He saw Mr. Smith. ", "It cost 3.5 dollars! ", "Yes."]),
        ("我爱北京。你去哪里？我们走吧！好的", ["我爱北京。", "你去哪里？", "我们走吧！", "好的"]),
        ("هذا نص عربي. هل هذا سؤال؟ نعم۔ وداعا", ["هذا نص عربي. ", "هل هذا سؤال؟ ", "نعم۔ ", "وداعا"]),
        (
            "A \U0001f600 smile. Second \U00020000 one. Third.",
            ["A \U0001f600 smile. ", "Second \U00020000 one. ", "Third."],
        ),
    ],
    ids=["English", "Chinese", "Arabic", "beyond 16 bits"],
)
def test_sentences_end_by_the_rules_of_unicode(texts: Texts, text: str, sentences: list[str]) -> None:
    longest = max(len(sentence.rstrip()) for sentence in sentences)
    pieces = texts(text, longest, markup=PLAIN, tokenizer=CharacterTokenizer())
    ends = {text.index(sentence) + len(sentence.rstrip()) for sentence in sentences}
    assert len(pieces) > 1
    assert {text.index(piece) + len(piece) for piece in pieces} <= ends


def test_no_word_is_cut(texts: Texts) -> None:
    assert texts("well-known don't 12.5 e.g. extra", 12, markup=PLAIN, tokenizer=CharacterTokenizer()) == [
        "well-known",
        "don't 12.5",
        "e.g. extra",
    ]
    assert texts("我爱北京天安门的早晨", 5, markup=PLAIN, tokenizer=CharacterTokenizer()) == [
        "我爱北京",
        "天安门的",
        "早晨",
    ]


@pytest.mark.parametrize(
    ("text", "limit", "pieces"),
    [
        ("我爱北京天安门。", 7, ["我爱北京", "天安门。"]),
        ("他说（好）：“你好！”他走了", 6, ["他说（好）：", "“你好！”", "他走了"]),
        ("我爱北京「天安门」", 6, ["我爱北京", "「天安门」"]),
        ("un mot\u00a0! et \u00ab\u00a0deux\u00a0\u00bb", 8, ["un mot\u00a0!", "et", "\u00ab\u00a0deux\u00a0\u00bb"]),
        ("open a .profile", 6, ["open a", ".profi", "le"]),
    ],
)
def test_punctuation_stays_with_its_words(texts: Texts, text: str, limit: int, pieces: list[str]) -> None:
    assert texts(text, limit, markup=PLAIN, tokenizer=CharacterTokenizer()) == pieces


def test_a_word_above_the_limit_is_cut_at_tokens_and_counted() -> None:
    text = "short " + "x" * 25 + " end"
    split = Splitter(CharacterTokenizer(), 10).split(Document("d", "", text))
    pieces = [text[piece.begin : piece.end] for piece in split.pieces]
    assert (max(map(len, pieces)), split.cut) == (10, 1)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("| a | b |\n|---|---|\n| " + "word " * 30 + "| c |\n| d | e |\n", 1),
        ("```\n" + "word " * 30 + "\nshort\n" + "word " * 40 + "\n```\n", 2),
        ("word " * 100, 0),
    ],
    ids=["row", "lines", "words"],
)
def test_rows_and_lines_above_the_limit_are_counted(text: str, cut: int) -> None:
    split = Splitter(WordTokenizer(), 20).split(Document("d", "", text, markup=Markup.MARKDOWN))
    assert split.cut == cut
    assert max(len((piece.repeated + text[piece.begin : piece.end]).split()) for piece in split.pieces) <= 20


def test_the_overlap_is_whole_sentences(texts: Texts) -> None:
    text = "One two three. Four five. Six seven eight. Nine ten. Eleven twelve thirteen fourteen fifteen."
    assert texts(text, 8, 5, markup=PLAIN) == [
        "One two three. Four five. Six seven eight.",
        "Four five. Six seven eight. Nine ten.",
        "Nine ten. Eleven twelve thirteen fourteen fifteen.",
    ]
    assert texts(text, 8, 1, markup=PLAIN) == [
        "One two three. Four five. Six seven eight.",
        "Nine ten. Eleven twelve thirteen fourteen fifteen.",
    ]


def test_no_overlap_reaches_over_a_heading(texts: Texts) -> None:
    assert texts("# A\n\nOne two. Three.\n\n# B\n\nFour five. Six.", 6, 3) == [
        "# A\n\nOne two. Three.",
        "# B\n\nFour five. Six.",
    ]


def test_lines_that_an_editor_wrapped_are_no_sentences(texts: Texts) -> None:
    wrapped = (
        "This sentence goes on over the line and\nOnly ends here on the second of its lines. The\nnext one is short."
    )
    assert texts(wrapped, 17, markup=PLAIN) == [wrapped[:-22].rstrip().rsplit(" The", 1)[0], "The\nnext one is short."]
    listed = "milk and bread\neggs\na bag of flour\nsalt"
    assert texts(listed, 5, markup=PLAIN) == ["milk and bread\neggs", "a bag of flour\nsalt"]


CODE_TEXT = '''"""Docs."""

import os


class Shape:
    """A shape."""

    def area(self):
        # what follows

        return 0

    @property
    def name(self):
        return "shape"


# how far
def distance(a, b):
    return abs(a - b)
'''


def test_code_is_cut_at_definitions(texts: Texts) -> None:
    assert texts(CODE_TEXT, 26, markup=CODE) == [
        CODE_TEXT[: CODE_TEXT.index("\n\n\n# how")],
        CODE_TEXT[CODE_TEXT.index("# how") :].rstrip(),
    ]
    assert texts(CODE_TEXT, 15, markup=CODE) == [
        CODE_TEXT[: CODE_TEXT.index("\n\n    @prop")],
        CODE_TEXT[CODE_TEXT.index("    @prop") :].rstrip(),
    ]


def test_definitions_in_braces(texts: Texts) -> None:
    text = "package a\n\nfunc One() int {\n\treturn 1\n}\nfunc Two() int {\n\n\treturn 2\n}\n"
    one, two = "func One() int {\n\treturn 1\n}", "func Two() int {\n\n\treturn 2\n}"
    assert texts(text, 9, markup=CODE) == [f"package a\n\n{one}", two]
    assert texts(text, 8, markup=CODE) == ["package a", one, two]


def test_pages_of_pieces() -> None:
    text = "One two. Three four. Five six. Seven eight."
    document = Document("d", "", text, pages=(0, text.index("Three"), text.index("Seven")))
    pieces = Splitter(WordTokenizer(), 4).split(document).pieces
    assert [(text[piece.begin : piece.end], piece.pages) for piece in pieces] == [
        ("One two. Three four.", (1, 2)),
        ("Five six. Seven eight.", (2, 3)),
    ]


def test_pieces_follow_one_another_and_make_up_the_text() -> None:
    text = "One two. Three four.\n\n" * 40
    pieces = Splitter(WordTokenizer(), 7).split(Document("d", "", text)).pieces
    assert all(one.end <= two.begin and not text[one.end : two.begin].strip() for one, two in pairwise(pieces))
    assert not text[: pieces[0].begin].strip()
    assert not text[pieces[-1].end :].strip()
