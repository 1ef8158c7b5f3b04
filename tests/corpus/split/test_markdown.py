"""Markdown: headings, tables, code blocks and lists; the right pieces are written by hand, and words are tokens."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.split.splitter import Splitter
from tests.corpus.split.conftest import CharacterTokenizer, Cut, WordTokenizer, content

Texts = Callable[..., list[str]]


def test_pieces_end_at_headings_and_keep_the_path_to_them(cut: Cut) -> None:
    text = "# Guide\n\nWords of the guide.\n\n## Install\n\nRun the installer.\n\n### Linux\n\nUse the package.\n"
    assert cut(text, 9) == [
        ("# Guide\n\nWords of the guide.", ("Guide",)),
        ("## Install\n\nRun the installer.", ("Guide", "Install")),
        ("### Linux\n\nUse the package.", ("Guide", "Install", "Linux")),
    ]


def test_going_back_to_a_higher_heading_forgets_the_lower_ones(cut: Cut) -> None:
    text = "".join(f"{heading}\n\none two\n\n" for heading in ("# A", "## B", "### C", "## D", "# E", "### F"))
    assert [headings for _, headings in cut(text, 5)] == [
        ("A",),
        ("A", "B"),
        ("A", "B", "C"),
        ("A", "D"),
        ("E",),
        ("E", "F"),
    ]


def test_closing_hashes_and_markup_are_no_part_of_a_heading(cut: Cut) -> None:
    text = "## Closed ##\n\none two\n\nUnder *line* `d`\n---\n\none two\n\n# C#\n\none two [three](x.md)\n"
    assert [headings for _, headings in cut(text, 6)] == [("Closed",), ("Under line d",), ("C#",)]


def test_a_hash_in_a_code_block_is_no_heading(cut: Cut) -> None:
    text = "# Real\n\nintro\n\n```bash\n# comment\nmake\n```\n\n    # indented code\n\nlast words of it\n"
    assert cut(text, 7) == [
        ("# Real\n\nintro", ("Real",)),
        ("```bash\n# comment\nmake\n```", ("Real",)),
        ("    # indented code\n\nlast words of it", ("Real",)),
    ]


def test_a_code_block_is_not_cut_unless_it_is_too_long_alone(texts: Texts) -> None:
    block = "```\na b\n\nc d\ne f\n```"
    assert texts(f"One two three. Four five.\n\n{block}\n\nSix seven.", 8) == [
        "One two three. Four five.",
        block,
        "Six seven.",
    ]
    assert texts(block, 5) == ["```\na b", "c d\ne f\n```"]


def test_a_table_is_cut_between_rows_and_repeats_its_header(cut: Cut) -> None:
    rows = [f"| {number} | {word} |" for number, word in enumerate(("one", "two", "three", "four"))]
    header = "| n | word |\n|---|---|"
    text = "# T\n\nBefore.\n\n" + "\n".join([header, *rows]) + "\n\nAfter the table.\n"
    assert cut(text, 17) == [
        ("\n".join(["# T\n\nBefore.\n", header, rows[0]]), ("T",)),
        ("\n".join([header, *rows[1:3]]), ("T",)),
        ("\n".join([header, rows[3]]), ("T",)),
        ("After the table.", ("T",)),
    ]


def test_a_header_that_takes_half_of_the_limit_is_not_repeated(texts: Texts) -> None:
    assert texts("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |", 11) == [
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "| 3 | 4 |\n| 5 | 6 |",
    ]


def test_text_before_the_first_heading_and_an_empty_section_are_kept(cut: Cut) -> None:
    text = "Words before.\n\n# One\n\n# Two\n\nText of two.\n\n# Three\n"
    assert cut(text, 9) == [("Words before.", ()), ("# One\n\n# Two\n\nText of two.\n\n# Three", ("Two",))]
    assert cut(text, 8) == [
        ("Words before.", ()),
        ("# One\n\n# Two\n\nText of two.", ("Two",)),
        ("# Three", ("Three",)),
    ]


def test_a_heading_never_stands_alone(cut: Cut) -> None:
    text = "# A\n\nOne two three four. Five six.\n\n## B\n\nOne two three. Four five six.\n\n## C\n"
    assert cut(text, 6) == [
        ("# A\n\nOne two three four.", ("A",)),
        ("Five six.", ("A",)),
        ("## B\n\nOne two three.", ("A", "B")),
        ("Four five six.\n\n## C", ("A", "B")),
    ]


def test_a_block_that_leaves_no_room_for_its_heading_is_cut_to_keep_it(texts: Texts) -> None:
    assert texts("# A\n\nOne two.\n\n## B\n\n```\na b\nc d\n```\n", 6) == [
        "# A\n\nOne two.",
        "## B\n\n```\na b",
        "c d\n```",
    ]
    assert texts("# A\n\n- one two three four five\n- six\n", 7) == ["# A\n\n- one two three four", "five\n- six"]
    assert texts("# A b\n\n- one two\n- three four\n", 6) == ["# A b\n\n- one two", "- three four"]
    assert texts("# A\n\n> one two three four\n", 6) == ["# A\n\n> one two three", "four"]
    assert texts("# A\n\nOne two three four five. Six.\n", 6) == ["# A\n\nOne two three four", "five. Six."]


def test_the_header_of_a_table_stays_with_the_heading_above_it(texts: Texts) -> None:
    header, rows = "| n |\n|---|", ["| one two three four five |", "| six |"]
    assert texts("# A b c\n\n" + "\n".join([header, *rows]), 14) == [
        f"# A b c\n\n{header}",
        f"{header}\n{rows[0]}",
        f"{header}\n{rows[1]}",
    ]


def test_a_heading_stands_alone_rather_than_to_be_lost(cut: Cut) -> None:
    assert cut("# A b\n\n    one two three four five\n", 6) == [
        ("# A b", ("A b",)),
        ("    one two three four five", ("A b",)),
    ]
    above = "# A\n\n## B"
    for block in ("- one two three", "1. one two three", "> one two three", "```\none two\n```"):
        assert cut(f"{above}\n\n{block}\n", 5) == [(above, ("A", "B")), (block, ("A", "B"))]


def test_a_row_after_one_that_was_cut_repeats_the_header(texts: Texts) -> None:
    header, long, rows = "| n |\n|---|", "| " + "word " * 14 + "|", ["| 1 |", "| 2 |"]
    assert texts("\n".join([header, rows[0], long, *rows]), 12) == [
        f"{header}\n{rows[0]}",
        "| " + "word " * 10 + "word",
        "word " * 3 + "|",
        "\n".join([header, *rows]),
    ]
    assert texts("\n".join([header, long, rows[0]]), 12)[-2:] == ["word " * 7 + "|", f"{header}\n{rows[0]}"]


def test_a_row_after_one_that_leaves_no_room_for_the_header_repeats_it(texts: Texts) -> None:
    header, wide, row = "| n |\n|---|", "| 1 2 3 4 5 6 7 |", "| 8 |"
    assert texts("\n".join([header, row, wide, row]), 12) == [f"{header}\n{row}", wide, f"{header}\n{row}"]


_WORDS = st.lists(st.sampled_from(["a", "tree", "12.5", "end.", "e.g.", "我爱北京", "x" * 30]), min_size=1, max_size=12)
_LINES = st.lists(_WORDS.map(" ".join), min_size=1, max_size=4)
_BLOCKS = st.one_of(
    st.builds(lambda level, words: f"{'#' * level} {' '.join(words)}", st.integers(1, 4), _WORDS),
    st.builds(lambda words, line: f"{' '.join(words)}\n{line}", _WORDS, st.sampled_from(["===", "---"])),
    _LINES.map("\n".join),
    _LINES.map(lambda lines: "\n".join(f"- {line}" for line in lines)),
    _LINES.map(lambda lines: "\n".join(f"> {line}" for line in lines)),
    _LINES.map(lambda lines: "\n".join(["```py", *lines, "```"])),
    _LINES.map(lambda lines: "\n".join(f"    {line}" for line in lines)),
    _LINES.map(lambda lines: "\n".join(["| a | b |", "|---|---|", *(f"| {line} | c |" for line in lines)])),
)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.lists(_BLOCKS, max_size=8).map("\n\n".join),
    st.integers(2, 32),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([WordTokenizer, CharacterTokenizer]),
)
def test_the_pieces_cover_all_but_white_space(
    text: str, limit: int, overlap: int, context: bool, tokenizer: type
) -> None:
    splitter = Splitter(tokenizer(), limit, overlap, context=context)
    pieces = splitter.split(Document("d", "T", text, markup=Markup.MARKDOWN)).pieces
    covered = {place for piece in pieces for place in range(piece.begin, piece.end)}
    assert not "".join(character for place, character in enumerate(text) if place not in covered).strip()
    encoded = [splitter.encoded_text("T", piece.headings, content(text, piece)) for piece in pieces]
    assert max(splitter._tokens.counts(encoded), default=0) <= limit


def test_lists_are_cut_between_items(texts: Texts) -> None:
    text = "- one two\n- three four\n  five\n\n  - six seven\n- eight\n"
    assert texts(text, 6) == ["- one two", "- three four\n  five", "  - six seven\n- eight"]


def test_headings_in_quotes_and_lists_begin_no_section(cut: Cut) -> None:
    assert [headings for _, headings in cut("# A\n\none two\n\n> # Quoted\n>\n> three four\n\nfive six\n", 5)] == [
        ("A",)
    ] * 3


def test_paragraph_breaks_and_indentation_and_no_break_spaces_survive(texts: Texts) -> None:
    text = "One\u00a0two.\n\n\nThree.\n\n    code\n      more\n\nFour\u00a0\n"
    assert texts(text, 100) == [text]
    assert texts(text, 3) == ["One\u00a0two.\n\n\nThree.", "    code\n      more\n\nFour\u00a0"]


def test_line_ends_of_other_systems(cut: Cut) -> None:
    for end in ("\r\n", "\r"):
        text = "# A\n\none two\n\n## B\n\nthree four\n".replace("\n", end)
        assert cut(text, 4) == [
            (f"# A{end}{end}one two", ("A",)),
            (f"## B{end}{end}three four", ("A", "B")),
        ]
