"""Words of texts in many scripts."""

import pytest

from llm2comp_indexes.lexical.tokenizer import LONGEST_WORD, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("How to read_csv, v2.0?", ["how", "to", "read", "csv", "v2", "0"]),
        ("C++ and C#", ["c", "and", "c"]),
        ("", []),
        (" -- \n...", []),
        ("Die Straße in ZÜRICH", ["die", "strasse", "in", "zürich"]),
        ("STRASSE", ["strasse"]),
        ("Привет, МИР", ["привет", "мир"]),
        ("Ελληνικός", ["ελληνικόσ"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("العربية ١٢٣", ["العربية", "١٢٣"]),
        ("ＡＢＣ１２", ["abc12"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("猫 and 犬", ["猫", "and", "犬"]),
        ("2024年PythonのAPI", ["2024", "年", "python", "の", "api"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("ไทย", ["ไ", "ท", "ย", "ไท", "ทย"]),
        ("𠀀𠀁", ["𠀀", "𠀁", "𠀀𠀁"]),
        ("half \ud800 pair", ["half", "pair"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_composed_and_decomposed_letters_are_one_word() -> None:
    assert split_words("caf\u00e9") == split_words("cafe\u0301") == ["caf\u00e9"]


@pytest.mark.parametrize("letter", ["a", "é"])
def test_endless_words_are_cut(letter: str) -> None:
    assert split_words(letter * (2 * LONGEST_WORD + 3)) == [letter * LONGEST_WORD] * 2 + [letter * 3]
