"""`llm2comp eval` as a user runs it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

DOCUMENTS = [("d1", "red apple"), ("d2", "yellow banana"), ("d3", "grey stone")]
QUERIES = [("q1", "yellow banana"), ("q2", "grey stone")]
RUN = "q1 Q0 d1 1 2.0 t\nq1 Q0 d2 2 1.0 t\n"


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "fruit"
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in rows), encoding="utf-8"
        )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\nq2\td3\t1\n", encoding="utf-8")
    return folder


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "other.trec").write_text(RUN, encoding="utf-8")
    return tmp_path / "other.trec"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model with a vector per word, all orthogonal to each other."""
    torch = pytest.importorskip("torch")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", *sorted({word for _, text in DOCUMENTS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("models") / "words"
    SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=torch.eye(len(words)))], device="cpu"
    ).save(str(folder))
    return folder


def test_scoring_a_run_file(llm2comp_command: Command, beir: Path, run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = llm2comp_command("eval", "--beir", beir, "--run", run_file, "--json", out)
    assert done.code == 0
    assert done.out.splitlines() == [
        "task   ndcg_at_10  map_at_1000  recall_at_100  mrr_at_10",
        "fruit      0.3155       0.2500         0.5000     0.2500",
    ]
    assert "fruit: 1 of 2 judged queries are not in the run and count as 0" in done.err
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["fruit"] == pytest.approx(
        {"ndcg_at_10": 0.3154648, "map_at_1000": 0.25, "recall_at_100": 0.5, "mrr_at_10": 0.25}
    )
    assert written["settings"]["run"] == str(run_file)


def test_a_model_its_run_and_its_scores_agree(
    llm2comp_command: Command, beir: Path, model_folder: Path, tmp_path: Path
) -> None:
    sts = tmp_path / "similar.tsv"
    sts.write_text(
        "sentence1\tsentence2\tscore\nred apple\tred apple\t5\nred apple\tred stone\t2\nred apple\tgrey stone\t0\n",
        encoding="utf-8",
    )
    out, run_out = tmp_path / "out.json", tmp_path / "run.trec"
    done = llm2comp_command(
        "eval", "--beir", beir, "--sts", sts, "--model", model_folder, "--json", out, "--run-out", run_out
    )
    assert done.code == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["fruit"] == pytest.approx({"ndcg_at_10": 1, "map_at_1000": 1, "recall_at_100": 1, "mrr_at_10": 1})
    assert written["similar"] == pytest.approx({"cosine_spearman": 1})
    assert written["settings"]["model"] == str(model_folder)
    query, _, document, rank, score, tag = run_out.read_text(encoding="utf-8").splitlines()[0].split(" ")
    assert (query, document, rank, tag) == ("q1", "d2", "1", "llm2comp")
    assert float(score) == pytest.approx(1)
    assert len(written["settings"]["fingerprint"]) == 64
    again = tmp_path / "again.json"
    assert llm2comp_command("eval", "--beir", beir, "--run", run_out, "--json", again).code == 0
    assert json.loads(again.read_text(encoding="utf-8"))["fruit"] == written["fruit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate on"),
        (["--run", "r"], "nothing to evaluate on"),
        (["--beir", "a", "--beir", "b", "--run", "r"], "--run takes one --beir folder"),
        (["--beir", "a", "--run", "r", "--model", "m"], "--run takes one --beir folder"),
        (["--sts", "a", "--run-out", "r"], "--run-out takes exactly one retrieval task"),
        (["--beir", "a", "--python-docs", "all", "--run-out", "r"], "--run-out takes exactly one retrieval task"),
        (["--beir", "a", "--json", "nowhere/x.json"], "there is no folder nowhere"),
        (["--python-docs", "some"], "python-docs"),
        (["--beir", "a", "--batch-size", "0"], "batch-size"),
        (["--beir", "a", "--run", "r", "--tasks", "SciFact"], "--run takes one --beir folder"),
        (["--beir", "a", "--instructions", "i.yaml"], "belong to --tasks"),
        (["--beir", "a", "--output-folder", "o"], "belong to --tasks"),
        (["--beir", "a", "--overwrite"], "--overwrite belongs to --json or --output-folder"),
        (["--beir", "a", "--data", "d"], "--data belongs to --suite"),
        (["--suite", "local", "--run-out", "r"], "--run-out takes exactly one retrieval task"),
        (["--beir", "a", "--weights", "1", "2"], "--weights goes with --mode hybrid"),
        (["--beir", "a", "--mode", "hybrid", "--weights", "0", "0"], "at least one above 0"),
        (["--beir", "a", "--mode", "bm25"], "give --model bm25"),
        (["--beir", "a", "--run", "r", "--mode", "hybrid"], "--run scores a ranking made elsewhere"),
    ],
)
def test_wrong_usage_is_2(llm2comp_command: Command, arguments: list[str], message: str) -> None:
    done = llm2comp_command("eval", *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert done.out == ""


def test_bad_input_is_one_line_and_1_and_leaves_nothing(
    llm2comp_command: Command, beir: Path, run_file: Path, tmp_path: Path
) -> None:
    run_file.write_text(RUN + "q1 Q0 d3\n", encoding="utf-8")
    done = llm2comp_command("eval", "--beir", beir, "--run", run_file, "--json", tmp_path / "out.json")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert f"{run_file}:3: 3 fields" in done.err
    assert not (tmp_path / "out.json").exists()


def test_two_folders_of_one_name_are_refused_before_the_model_is_loaded(llm2comp_command: Command, beir: Path) -> None:
    done = llm2comp_command("eval", "--beir", beir, "--beir", beir, "--model", "no such model")
    assert done.code == 1
    assert "would be called 'fruit'" in done.err


@pytest.fixture
def fruit_as_scifact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mteb's task SciFact with the fruit for its data."""
    mteb = pytest.importorskip("mteb", reason="needs the extra eval")
    from datasets import Dataset

    def load_data(self: Any, **_: Any) -> None:
        corpus = Dataset.from_list([{"id": key, "title": "", "text": text} for key, text in DOCUMENTS])
        queries = Dataset.from_list([{"id": key, "text": text} for key, text in QUERIES])
        judged = {"q1": {"d2": 1}, "q2": {"d3": 1}}
        self.dataset = {
            "default": {"test": {"corpus": corpus, "queries": queries, "relevant_docs": judged, "top_ranked": None}}
        }
        self.data_loaded = True

    monkeypatch.setattr(type(mteb.get_task("SciFact")), "load_data", load_data)


@pytest.mark.usefixtures("fruit_as_scifact")
def test_a_task_of_mteb_beside_a_folder(
    llm2comp_command: Command, beir: Path, model_folder: Path, tmp_path: Path
) -> None:
    instructions, out, folder = tmp_path / "instructions.yaml", tmp_path / "out.json", tmp_path / "mteb"
    instructions.write_text("SciFact: 'banana '\n", encoding="utf-8")
    command = [
        "eval",
        "--beir",
        beir,
        "--tasks",
        "SciFact",
        "--model",
        model_folder,
        "--json",
        out,
        "--output-folder",
        folder,
    ]
    done = llm2comp_command(*command, "--model-name", "fruit/words", "--instructions", instructions)
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "task   ndcg_at_10  map_at_1000  recall_at_100  mrr_at_10",
            "fruit      1.0000       1.0000         1.0000     1.0000",
            "task         metric   score",
            "SciFact  ndcg_at_10  1.0000",
        ],
    )
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["fruit"]["ndcg_at_10"] == written["SciFact"]["ndcg_at_10"] == 1
    assert written["settings"]["tasks"]["SciFact"]["prompts"]["query"] == "banana "
    assert written["versions"]["mteb"]
    (result,) = folder.glob("results/fruit__words/*/SciFact.json")
    assert json.loads(result.read_text())["scores"]["test"][0]["main_score"] == 1
    assert all(line.endswith(" s") for line in done.err.splitlines()), done.err

    without = llm2comp_command(*command, "--model-name", "fruit/words")
    assert (without.code, without.err.count("made with other instructions")) == (1, 1)


def test_no_such_task_is_one_line_and_1(llm2comp_command: Command) -> None:
    pytest.importorskip("mteb", reason="needs the extra eval")
    done = llm2comp_command("eval", "--tasks", "SciFct")
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == "llm2comp: error: mteb has no task or benchmark of this name: 'SciFct' not found. Did you mean: 'SciFact'?\n"
    )


def test_a_hub_that_does_not_answer_is_one_line_and_1_before_the_model_is_loaded(
    llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mteb", reason="needs the extra eval")
    from huggingface_hub import HfApi

    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", no_network)
    done = llm2comp_command("eval", "--tasks", "NFCorpus", "--model", "no such model")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "NFCorpus: its data set mteb/nfcorpus cannot be loaded" in done.err


def test_a_model_and_bm25_together_by_weighted_reciprocal_ranks(
    llm2comp_command: Command, beir: Path, model_folder: Path, tmp_path: Path
) -> None:
    (beir / "queries.jsonl").write_text('{"_id": "q1", "text": "red grey grey"}\n', encoding="utf-8")
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    out, run_out = tmp_path / "out.json", tmp_path / "run.trec"
    options = ("--mode", "hybrid", "--fusion", "ranks", "--weights", 1, 3, "--json", out, "--run-out", run_out)
    done = llm2comp_command("eval", "--beir", beir, "--model", model_folder, *options)
    assert done.code == 0, done.err
    rows = [line.split() for line in run_out.read_text(encoding="utf-8").splitlines()]
    # By vectors d3, d1, d2; by words d3, d1 (BM25 counts "grey" twice), and d2 has none of them
    expected = {"d3": 1 / 61 + 3 / 61, "d1": 1 / 62 + 3 / 62, "d2": 1 / 63}
    assert {row[2]: float(row[4]) for row in rows} == pytest.approx(expected)
    settings = json.loads(out.read_text(encoding="utf-8"))["settings"]
    assert (settings["system"], settings["model"]) == ("hybrid", f"hybrid:{model_folder}")
    assert settings["parameters"]["weights"] == {"vectors": 1.0, "words": 3.0}
    others = llm2comp_command("eval", "--beir", beir, "--model", model_folder, "--mode", "hybrid", "--json", out)
    assert (others.code, others.err.count("\n")) == (1, 1)


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_model_trained_anew_in_the_same_folder_is_not_taken_for_the_same(
    llm2comp_command: Command, beir: Path, model_folder: Path, tmp_path: Path, mode: str
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model_folder, copied)
    command = ["eval", "--beir", beir, "--model", copied, "--mode", mode, "--json", tmp_path / "out.json"]
    assert llm2comp_command(*command).code == 0
    again = llm2comp_command(*command)
    assert (again.code, again.err.count("fruit: finished before")) == (0, 1)
    (weights,) = copied.rglob("*.safetensors")
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    other = llm2comp_command(*command)
    assert (other.code, other.err.count("holds results of another model")) == (1, 1)
