"""Hard negatives: what is taken and what is left out, on vectors whose angles are known, and folders that resume."""

import gzip
import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.corpus.triples import Triple, read_triples
from llm2comp.errors import CorpusError, SettingsError, TrainingError
from llm2comp.model import LLM2Comp
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.negatives import mine
from llm2comp.training.negatives.files import mine_hard_negatives
from llm2comp.training.negatives.mine import MinedRows, PairRow, mine_rows
from llm2comp.training.negatives.settings import MiningSettings
from tests.training.tiny import small_model, supervised, write_pairs


class Angles:
    """A stand-in for a model: a text is a vector of length 2, at the angle in degrees that is its last word."""

    def __init__(self, fingerprint: str = "angles", stop_at: str | None = None) -> None:
        self.fingerprint = fingerprint
        self.stop_at = stop_at
        self.encoded: list[str] = []
        self.prompts: list[str | None] = []

    def encode_query(self, texts: list[str], *, show_progress_bar: bool, prompt: str | None = None) -> NDArray[Any]:
        self.prompts.append(prompt)
        return self.encode_document(texts, show_progress_bar=show_progress_bar)

    def encode_document(self, texts: list[str], *, show_progress_bar: bool) -> NDArray[Any]:
        if self.stop_at in texts:
            raise KeyboardInterrupt
        self.encoded += texts
        angles = [math.radians(float(text.split()[-1].strip(".!"))) for text in texts]
        return np.array([[2 * math.cos(angle), 2 * math.sin(angle)] for angle in angles])


def as_model(model: Angles) -> LLM2Comp:
    return cast(LLM2Comp, model)


def row(query: str, positives: str, negatives: str = "", source: str | int | None = None) -> PairRow:
    """A row whose positives and negatives are separated by `|`."""
    return PairRow(Triple(query, tuple(positives.split("|")), tuple(filter(None, negatives.split("|")))), source)


def mined(*rows: PairRow, model: Angles | None = None, **settings: Any) -> MinedRows:
    return mine_rows(as_model(model or Angles()), rows, MiningSettings(**settings))


def test_a_file_whose_name_is_not_utf8_is_mined() -> None:
    rows = row("q 0", "p 10"), row("r 90", "thirty 30|sixty 60")
    mines = mine_rows(as_model(Angles()), rows, MiningSettings(negatives=1, sampling="random"), name="caf\udce9")
    assert mines.negatives[0] in [("thirty 30",), ("sixty 60",)]


def test_passages_below_the_margin_are_negatives_the_most_similar_first() -> None:
    # cosines to q: 10 degrees 0.985, times 0.95 0.936; 5: 0.996, 20: 0.940, 30: 0.866, 60: 0.500, 90: 0.000
    rows = row("q 0", "p 10"), row("r 90", "five 5|twenty 20|sixty 60|thirty 30|ninety 90")
    assert mined(*rows, negatives=2) == MinedRows([("thirty 30", "sixty 60"), ()], 3)
    # of r, the least similar positive counts: 5 degrees, 0.087, of which p is above 0.083
    assert mined(*rows, negatives=9).negatives[0] == ("thirty 30", "sixty 60", "ninety 90")
    assert mined(*rows, negatives=1, margin=1).negatives[0] == ("twenty 20",)
    assert mined(*rows, negatives=1, margin=0.6).negatives[0] == ("sixty 60",)


def test_a_positive_of_negative_similarity() -> None:
    # q to p 120: -0.5, less 5 percent of 0.5: -0.525; 100: -0.174, 121: -0.515, 130: -0.643
    rows = row("q 0", "p 120"), row("r 115", "a 100|b 121|c 130")
    assert mined(*rows).negatives[0] == ("c 130",)


def test_ranks_count_all_passages_that_may_be_negatives() -> None:
    rows = row("q 0", "p 10"), row("r 90", "five 5|twenty 20|sixty 60|thirty 30|ninety 90")
    assert mined(*rows, negatives=1, from_rank=4).negatives[0] == ("sixty 60",)
    assert mined(*rows, negatives=1, to_rank=2).negatives[0] == ()
    assert mined(*rows, negatives=3, to_rank=4).negatives[0] == ("thirty 30", "sixty 60")


def test_random_ones_are_among_the_ranks_and_depend_on_the_seed() -> None:
    rows = row("q 0", "p 0"), row("r 90", "|".join(f"d{angle} {angle}" for angle in range(20, 100)))
    drawn = {
        seed: mined(*rows, negatives=3, to_rank=10, sampling="random", seed=seed).negatives[0] for seed in range(9)
    }
    assert drawn[3] == mined(*rows, negatives=3, to_rank=10, sampling="random", seed=3).negatives[0]
    assert len(set(drawn.values())) > 1
    assert {text for texts in drawn.values() for text in texts} <= {f"d{angle} {angle}" for angle in range(20, 30)}
    assert all(len(set(texts)) == 3 for texts in drawn.values())


def test_neither_the_query_nor_one_of_its_positives_is_a_negative() -> None:
    rows = (
        row("The query 0", "first 1"),
        row("the query 0!", "second 40"),  # another row of the same query
        row("other 90", "The QUERY 0|First! 1.|second 40.|free 80"),
    )
    assert mined(*rows, margin=1).negatives == [("free 80",), ("free 80",), ()]


def test_equal_passages_are_one() -> None:
    rows = row("q 0", "p 1"), row("r 80", "Copy 70|copy 70.|else 75")
    assert mined(*rows).negatives[0] == ("Copy 70", "else 75")


def test_passages_of_the_same_source_are_no_negatives(caplog: pytest.LogCaptureFixture) -> None:
    rows = (
        row("q 0", "p 1", source="a"),
        row("r 90", "near 30", source="a"),
        row("s 90", "far 60", source=7),
        row("t 90", "none 70"),
    )
    assert mined(*rows).negatives[0] == ("far 60", "none 70")
    assert not caplog.messages
    assert mined(*rows, same_source=True).negatives[0] == ("near 30", "far 60", "none 70")
    same = [each._replace(source="wiki") for each in rows]
    assert mined(*same).negatives == [()] * 4
    assert "4 of 4 passages have the source 'wiki'" in caplog.text


def test_negatives_of_a_row_stay_first_and_count() -> None:
    rows = row("q 0", "p 1", "given 50|near 30"), row("r 90", "near 30|far 60|farther 70|farthest 80")
    assert mined(*rows, negatives=3).negatives[0] == ("given 50", "near 30", "far 60")
    assert mined(*rows, negatives=1).negatives[0] == ("given 50", "near 30")


def test_queries_in_blocks_have_the_same_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"q {angle}", f"p {angle + 3}") for angle in range(0, 180, 7)]
    at_once = mined(*rows)
    monkeypatch.setattr(mine, "_SCORES_AT_ONCE", 60)
    monkeypatch.setattr(mine, "_TEXTS_AT_ONCE", 5)
    assert mined(*rows) == at_once
    assert any(at_once.negatives)


def test_a_vector_that_is_not_finite() -> None:
    with pytest.raises(TrainingError, match="not finite for the text 'p nan'"):
        mined(row("q 0", "p nan"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"negatives": 0}, "negatives is 0; it must be at least 1"),
        ({"margin": 0.0}, "margin is 0; expected a number above 0, at most 1"),
        ({"margin": 1.5}, "margin is 1.5"),
        ({"margin": math.nan}, "margin is nan"),
        ({"from_rank": 0}, "from_rank is 0"),
        ({"to_rank": 3}, "from_rank 1 to to_rank 3 are fewer passages than negatives 4"),
        ({"sampling": "best"}, "sampling is 'best'; give top or random"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        MiningSettings(**fields)


FIRST = [
    {"query": "q 0", "positive": "p 1", "source": "one"},
    {"query": "r 80", "positive": ["far 60", "farther 70"], "label": 1, "negative": None},
    {"queries": ["s 85", "t 86"], "positive": "s 87", "source": 3},
]
SECOND = [{"query": "u 0", "positive": "v 1"}, {"query": "w 80", "positive": "x 60"}]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name, rows in {"a.jsonl": FIRST, "b.ndjson.gz": SECOND}.items():
        content = "".join(json.dumps(each) + "\n" for each in rows).encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (folder / "instructions.yaml").write_text("b: 'Find: '")
    return folder


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_files_are_written_again_with_negatives(pairs: Path, tmp_path: Path) -> None:
    model, seen = Angles(), list[str]()
    counts = mine_hard_negatives(
        as_model(model), [pairs], tmp_path / "out", on_file=lambda name, counts: seen.append(name)
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")) == [
        "a.jsonl.gz",
        "b.jsonl.gz",
        "instructions.yaml",
        "pairs.json",
    ]
    assert lines(tmp_path / "out" / "a.jsonl.gz") == [
        {"query": "q 0", "positive": "p 1", "negative": ["far 60", "farther 70", "s 87"], "source": "one"},
        {"query": "r 80", "positive": ["far 60", "farther 70"], "negative": "p 1"},
        {"query": "s 85", "positive": "s 87", "negative": ["far 60", "p 1"], "source": 3},
        {"query": "t 86", "positive": "s 87", "negative": ["far 60", "p 1"], "source": 3},
    ]
    assert counts["a"]._asdict() == {"rows": 4, "with_negatives": 4, "mined": 8, "too_close": 3}
    assert json.loads((tmp_path / "out" / "pairs.json").read_text())["files"]["a"]["mined"] == 8
    assert seen == ["a", "b"]
    assert model.prompts == [None, "Find: "]
    sets = read_triples(tmp_path / "out", max_negatives=4)
    assert [(each.name, each.instruction, each.pairs) for each in sets] == [
        ("a-1neg", None, 2),
        ("a-2neg", None, 2),
        ("a-3neg", None, 1),
        ("b-1neg", "Find: ", 2),
    ]


def test_rows_without_negatives_stay(pairs: Path, tmp_path: Path) -> None:
    counts = mine_hard_negatives(as_model(Angles()), [pairs], tmp_path / "out", MiningSettings(limit=1))
    assert lines(tmp_path / "out" / "b.jsonl.gz") == [{"query": "u 0", "positive": "v 1"}]
    assert counts["b"]._asdict() == {"rows": 1, "with_negatives": 0, "mined": 0, "too_close": 0}


def test_an_interruption_loses_one_file_at_most(pairs: Path, tmp_path: Path) -> None:
    mine_hard_negatives(as_model(Angles()), [pairs], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        mine_hard_negatives(as_model(Angles(stop_at="x 60")), [pairs], tmp_path / "out")
    assert not (tmp_path / "out" / "b.jsonl.gz").exists()
    model = Angles()
    counts = mine_hard_negatives(as_model(model), [pairs], tmp_path / "out")
    assert model.encoded == ["u 0", "w 80", "v 1", "x 60"]
    for name in ("a.jsonl.gz", "b.jsonl.gz", "instructions.yaml", "pairs.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = Angles()
    assert mine_hard_negatives(as_model(again), [pairs], tmp_path / "out") == counts
    assert again.encoded == []


def test_a_run_that_was_stopped_in_its_first_file_can_go_on(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        mine_hard_negatives(as_model(Angles(stop_at="q 0")), [pairs], tmp_path / "out")
    (tmp_path / "out" / "a.jsonl.gz").write_bytes(b"written, but not yet in the record")
    mine_hard_negatives(as_model(Angles()), [pairs], tmp_path / "out")
    assert len(lines(tmp_path / "out" / "a.jsonl.gz")) == 4


def test_files_may_be_added(pairs: Path, tmp_path: Path) -> None:
    first, second = pairs / "a.jsonl", pairs / "b.ndjson.gz"
    mine_hard_negatives(as_model(Angles()), [first], tmp_path / "out")
    counts = mine_hard_negatives(as_model(Angles()), [second], tmp_path / "out")
    assert list(counts) == ["b"]
    assert list(json.loads((tmp_path / "out" / "pairs.json").read_text())["files"]) == ["a", "b"]


def test_other_settings_models_and_files_are_refused(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine_hard_negatives(as_model(Angles()), [pairs], out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SettingsError, match=r"out was begun with other settings: margin was 0\.95, now 0\.9\. Give"):
        mine_hard_negatives(as_model(Angles()), [pairs], out, MiningSettings(margin=0.9))
    with pytest.raises(SettingsError, match="another model, or another maximum length of it"):
        mine_hard_negatives(as_model(Angles("others")), [pairs], out)
    with (pairs / "a.jsonl").open("a") as file:
        file.write(json.dumps(SECOND[0]))
    with pytest.raises(SettingsError, match="another content or instruction of a"):
        mine_hard_negatives(as_model(Angles()), [pairs], out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_mistakes(pairs: Path, tmp_path: Path) -> None:
    model = as_model(Angles())
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="no training files"):
        mine_hard_negatives(model, [], out)
    with pytest.raises(CorpusError, match=r"none\.jsonl: no such file"):
        mine_hard_negatives(model, [tmp_path / "none.jsonl"], out)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(CorpusError, match=r"empty\.jsonl: no pairs in it"):
        mine_hard_negatives(model, [tmp_path / "empty.jsonl"], out)
    (tmp_path / "bad.jsonl").write_text('{"query": "q 0"}')
    with pytest.raises(CorpusError, match=r"bad\.jsonl:1: no positive"):
        mine_hard_negatives(model, [pairs, tmp_path / "bad.jsonl"], out)
    (tmp_path / "a.json").write_text(json.dumps(SECOND[0]))
    with pytest.raises(SettingsError, match="two files are named a;"):
        mine_hard_negatives(model, [pairs, tmp_path / "a.json"], out)
    with pytest.raises(SettingsError, match="is in the output folder"):
        mine_hard_negatives(model, [pairs], pairs)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").touch()
    with pytest.raises(SettingsError, match="out holds other files; give another output folder"):
        mine_hard_negatives(model, [pairs], out)
    with pytest.raises(TrainingError, match=r"notes\.txt: cannot be made a folder of a run"):
        mine_hard_negatives(model, [pairs], out / "notes.txt")
    (out / "pairs.json").write_text('{"settings": {}, "counts": {}}')
    with pytest.raises(SettingsError, match='not a valid record of mined negatives: "files" is missing'):
        mine_hard_negatives(model, [pairs], out)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "pairs.json"]


def test_stage_3_trains_on_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs" / "a.jsonl", 12)
    (tmp_path / "pairs" / "instructions.yaml").write_text("a: 'Find the bridge: '")
    model = small_model(max_length=16)
    caplog.set_level("INFO")
    counts = mine_hard_negatives(
        model, [tmp_path / "pairs"], tmp_path / "mined", MiningSettings(negatives=2, margin=1.0)
    )
    assert counts["a"].rows == 12
    assert counts["a"].mined > 0
    assert "a: 24 of 24 texts were cut to their first 16 tokens" in caplog.messages
    train_contrastive(model, supervised(tmp_path / "mined", max_negatives=2, steps=2, batch_size=2), tmp_path / "run")
    assert model.stages == ["supervised"]
