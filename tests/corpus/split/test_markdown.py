"""Markdown: headings, tables, code blocks and lists; the right pieces are written by hand, and words are tokens."""

from collections.abc import Callable

from tests.corpus.split.conftest import Cut

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


def test_a_heading_whose_code_leaves_no_room_stands_in_the_path_alone(cut: Cut) -> None:
    text = "# A\n\nOne two.\n\n## B\n\n```\na b\nc d\n```\n"
    assert cut(text, 6) == [("# A\n\nOne two.", ("A",)), ("```\na b\nc d\n```", ("A", "B"))]


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
