"""`search DIR` without a question: questions from a pipe and from a terminal, commands, Ctrl-C, history."""

import io
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm2comp
from llm2comp_indexes import IndexOptions, add_documents, build_index
from tests.cli.terminal import Terminal
from tests.word_encoder import WordEncoder

pytestmark = pytest.mark.usefixtures("stand_in")
needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")

DOCUMENTS = (
    {"_id": "tides", "title": "The sea", "text": "moon tides harbour", "year": 2020, "place": {"name": "Brest"}},
    {"_id": "bread", "text": "bread oven butter\nBake it\x1b[31m twice.", "year": 2019},
    {"_id": "chess", "text": "numbers prime field", "year": 2021},
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    return path


def build(corpus: Path, folder: Path, *, hybrid: bool = True) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(llm2comp), "load", lambda name=None, **_: WordEncoder())
        build_index([corpus], folder, options=IndexOptions(hybrid=hybrid))
    return folder


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(corpus, tmp_path_factory.mktemp("index") / "idx")


@pytest.fixture
def ask(
    folder: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, output and errors for the lines on standard input."""

    def run(lines: str | bytes, *options: object, index: Path = folder) -> tuple[int, str, str]:
        content = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        done = llm2comp_command("search", index, *options)
        return done.code, done.out, done.err

    return run


def ids(out: str) -> list[str]:
    """Ids of the first results: a document without a title is shown by its id."""
    return re.findall(r"(?m)^  1 +-?\d\.\d{3} (.*)$", out)


class TestPiped:
    def test_each_line_is_a_question(self, ask: Callable[..., Any]) -> None:
        code, out, err = ask("bread oven\n\n  moon tides \nprime numbers", "-k", "1")
        assert (code, ids(out), err) == (0, ["bread", "The sea", "chess"], "")
        assert len(re.findall(r"(?m)^     search [\d.]+ ms, encode [\d.]+ ms; score: cosine", out)) == 3
        assert "> " not in out
        assert "\x1b" not in out

    def test_commands_change_what_follows(self, ask: Callable[..., Any]) -> None:
        lines = (
            "/where year < 2020\nmoon\n/where\nmoon\n/k 1\nmoon\n/show year, place.name\nmoon\n/mode bm25\nmoon\n"
            "/mode hybrid\nmoon\n/quit\nbread\n"
        )
        code, out, err = ask(lines, "-k", "2")
        filtered, free, single, shown, words, both = re.split(
            r"(?m)^(?:filter|results|metadata shown|mode): .*\n", out
        )[1:]
        assert (code, err) == (0, "")
        assert ids(out) == ["bread", *["The sea"] * 5]  # none after /quit
        assert "The sea" not in filtered
        assert "  2  " in free
        assert "  2  " not in single
        assert "year:" not in single
        assert "            year: 2020, place.name: Brest\n" in shown
        assert re.search(r"search [\d.]+ ms; score: BM25\n", words)
        assert re.search(r"(?m)encode [\d.]+ ms; score: cosine and BM25, each scaled to 0..1, .* 0.3 to 0.7$", both)

    def test_a_result_is_read_whole_and_safely(self, ask: Callable[..., Any]) -> None:
        _, out, _ = ask("bread\n/read 1\n", "-k", "1")
        assert out.endswith("\nbread oven butter\nBake it\N{REPLACEMENT CHARACTER}[31m twice.\n")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("/where yer > 3", 'where \'yer > 3\': no document has the field "yer"; did you mean "year"?'),
            ("/where year >", "where 'year >': "),
            ("/where year = 2020", "where 'year = 2020': "),
            ("/mode fuzzy", "mode is 'fuzzy', expected dense, bm25 or hybrid"),
            ("/mode", "mode is '', expected"),
            ("/k 0", "/k is '0', expected a number from 1 to 1,000"),
            ("/k 1001", "/k is '1001', expected"),
            ("/k " + "9" * 5000, "/k is '9999"),
            ("/k ³", "/k is '³', expected"),
            ("/show yeer", 'show \'yeer\': no document has the field "yeer"; did you mean "year"?'),
            ("/read 1", "/read: there is no result to read yet"),
            ("/frobnicate\x07", "/frobnicate\N{REPLACEMENT CHARACTER}: no such command; /help lists them"),
            (b"\xff\xfemoon", "a question that is not UTF-8"),
        ],
    )
    def test_a_wrong_line_is_one_line_and_changes_nothing(
        self, ask: Callable[..., Any], line: str | bytes, message: str
    ) -> None:
        content = line if isinstance(line, bytes) else line.encode()
        code, out, err = ask(content + b"\nmoon\n", "-k", "1")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1
        assert "\x07" not in err
        assert ids(out) == ["The sea"]
        assert code == 1  # a script learns of it

    def test_words_need_an_index_of_them(self, corpus: Path, tmp_path: Path, ask: Callable[..., Any]) -> None:
        index = build(corpus, tmp_path / "idx", hybrid=False)
        code, out, err = ask("/mode bm25\nmoon\n", "-k", "1", index=index)
        assert (code, ids(out)) == (1, ["The sea"])  # still by vectors
        assert "holds no BM25 index" in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--where", "yer > 3"), 'no document has the field "yer"'),
            (("--show", "year,yeer"), 'no document has the field "yeer"'),
        ],
    )
    def test_wrong_options_end_it_before_the_first_question(
        self, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
    ) -> None:
        monkeypatch.setitem(vars(llm2comp), "load", lambda *_, **__: pytest.fail("loaded a model"))
        code, out, err = ask("moon\n", *options)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err

    @pytest.mark.parametrize(
        "line", ["\x00 \x1b[2J moon tides \x07", "moon " * 200_000, "moon tides \u202e\ud7ff\U000e0001", "\ufeffmoon"]
    )
    def test_strange_questions_are_answered(self, ask: Callable[..., Any], line: str) -> None:
        code, out, err = ask(line + "\n", "-k", "1")
        assert (code, err) == (0, "")
        assert ids(out) == ["The sea"]
        assert not set(out) & set("\x00\x07\x1b\u202e")

    def test_no_result_says_why(self, ask: Callable[..., Any]) -> None:
        code, out, err = ask("zebra\n/where year > 5000\nzebra\n", "--mode", "bm25")
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "nothing found: no document has a word of the question",
            "filter: year > 5000",
            "nothing found: no document fits year > 5000 and has a word of the question",
        ]

    def test_no_line_is_no_question(self, ask: Callable[..., Any]) -> None:
        assert ask("") == (0, "", "")

    def test_help_names_every_command(self, ask: Callable[..., Any]) -> None:
        _, out, _ = ask("/help\n")
        assert re.findall(r"(?m)^/\w+", out) == ["/mode", "/where", "/k", "/show", "/read", "/quit"]


@needs_terminal
class TestTyped:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(tmp_path / "state")}

    def test_a_session(self, folder: Path, environment: dict[str, str]) -> None:
        with Terminal("search", folder, "-k", "1", environment=environment) as terminal:
            assert terminal.read_until("> ") == "3 documents. Ask, or /help.\r\n> "
            answer = terminal.ask("where is the moon?")
            assert "moon?\r\n  1   0." in answer
            assert "            \x1b[1mmoon\x1b[22m tides harbour\r\n" in answer
            assert re.search(
                r"\r\n     search [\d.]+ ms, encode [\d.]+ ms; score: cosine of question and text$", answer
            )
            assert 'no document has the field "yer"' in terminal.ask("/where yer > 1")
            assert "  1   0." in terminal.ask("bread")
            terminal.type("\x04")
            assert terminal.wait() == 0
        assert terminal.output.endswith("\r\n> \r\n")
        assert "Loading" not in terminal.output

    def test_ctrl_c_leaves_a_line_and_a_search(self, folder: Path, environment: dict[str, str]) -> None:
        with Terminal("search", folder, "-k", "1", environment=environment) as terminal:
            terminal.read_until("> ")
            terminal.type("half a quest")
            terminal.read_until("quest")
            time.sleep(0.5)  # Python misses a signal that comes between a key and its wait for the next one
            terminal.type("\x03")
            terminal.read_until("\r\n> ")
            terminal.type("slowly\n")
            terminal.read_until("encoding")
            terminal.type("\x03")
            terminal.read_until("\r\n> ")
            assert "bread" in terminal.ask("bread")
            terminal.type("/quit\n")
            assert terminal.wait() == 0
        assert "Traceback" not in terminal.output

    def test_arrows_bring_back_the_questions_of_earlier_sessions(
        self, folder: Path, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        pytest.importorskip("readline")
        for keys in ("prime numbers\n", "\x1b[A\n"):
            with Terminal("search", folder, "-k", "1", environment=environment) as terminal:
                terminal.read_until("> ")
                terminal.type(keys)
                assert "chess" in terminal.read_until("\r\n> ")
                terminal.type("\x04")
                assert terminal.wait() == 0
        history = tmp_path / "state" / "llm2comp" / "search-history"
        assert "prime numbers" in history.read_text()
        assert history.stat().st_mode & 0o077 == 0

    def test_without_a_place_for_history_there_is_none(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with Terminal("search", folder, environment={"XDG_STATE_HOME": str(tmp_path / "file")}) as terminal:
            terminal.read_until("> ")
            terminal.type("\x04")
            assert terminal.wait() == 0
        assert terminal.output == "3 documents. Ask, or /help.\r\n> \r\n"

    @pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_no_bold_where_it_is_not_wanted(
        self, folder: Path, environment: dict[str, str], plain: dict[str, str]
    ) -> None:
        with Terminal("search", folder, "moon", environment={**environment, **plain}) as terminal:
            assert terminal.wait() == 0
        assert "moon tides harbour" in terminal.output
        assert "\x1b" not in terminal.output

    def test_bytes_that_are_no_text(self, folder: Path, environment: dict[str, str]) -> None:
        with Terminal("search", folder, "-k", "1", environment=environment) as terminal:
            terminal.read_until("> ")
            assert "bytes that are no text; type it again" in terminal.ask(b"\xff\xfe\n")
            assert "bread" in terminal.ask("bread")
            terminal.type("\x04")
            assert terminal.wait() == 0
        assert "Traceback" not in terminal.output

    def test_a_change_of_the_index_is_seen_at_the_next_question(
        self, corpus: Path, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        index = build(corpus, tmp_path / "idx")
        with Terminal("search", index, "-k", "1", environment=environment) as terminal:
            terminal.read_until("> ")
            assert "1.000" not in terminal.ask("stone light")
            (tmp_path / "new.jsonl").write_text('{"_id": "new", "text": "stone light"}\n')
            add_documents(index, [tmp_path / "new.jsonl"])
            answer = terminal.ask("stone light")
            assert "the index has changed: 4 documents\r\n" in answer
            assert "\r\n  1   1.000 new\r\n" in answer
            terminal.type("\x04")
            assert terminal.wait() == 0
