"""Tasks of mteb on local data: its scores and ours, its folders, its prompts; and the lack of a Hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.model import LLM2Comp, load
from llm2comp_benchmarks import evaluate, read_beir
from llm2comp_benchmarks.compare.compare import compare
from llm2comp_benchmarks.mteb.model import Identity, describe_for_mteb, identify, load_for_mteb
from llm2comp_benchmarks.mteb.prompts import leaves, prompts_of, read_instructions, resolve_prompts
from llm2comp_benchmarks.mteb.samples import has_samples
from llm2comp_benchmarks.mteb.tasks import check_data, evaluate_mteb, read_mteb_task, read_mteb_tasks
from llm2comp_benchmarks.results.read import read_result_file
from llm2comp_benchmarks.results.record import write_results
from llm2comp_benchmarks.systems.load import load_model
from tests.paths import BACKBONE

mteb = pytest.importorskip("mteb", reason="needs the extra eval")

Rows = list[dict[str, Any]]
IDENTITY = Identity("owner/name", "abc")
QUESTIONS = {
    "q1": "delete a folder",
    "q2": "square root",
    "q3": "order the items of a list",
    "q4": "is this file there?",
    "q5": "join words into one text",
}
ANSWERS = [
    "Remove a file or directory.",
    "Return the square root of x.",
    "Sort the list in place.",
    "Whether a path exists.",
    "Concatenate any number of strings.",
    "Remove an item from a list.",
    "Return x raised to the power y.",
    "Reverse the elements.",
    "Open a file and return a stream.",
    "Split a string into a list of words.",
]


@pytest.fixture
def questions(write_beir: Callable[[Rows, Rows, Any], Path]) -> Path:
    """A BEIR folder: five questions, ten answers, of which the first five are right, and one more is half right."""
    documents = [{"_id": f"d{number}", "text": text} for number, text in enumerate(ANSWERS, 1)]
    queries = [{"_id": key, "text": text} for key, text in QUESTIONS.items()]
    return write_beir(
        documents, queries, [*((f"q{number}", f"d{number}", 2) for number in range(1, 6)), ("q3", "d8", 1)]
    )


@pytest.fixture
def scifact(monkeypatch: pytest.MonkeyPatch, questions: Path) -> Any:
    """Mteb's task SciFact with these questions for its data."""
    from datasets import Dataset

    data = read_beir(questions)

    def load_data(self: Any, **_: Any) -> None:
        corpus = Dataset.from_list(
            [{"id": document.id, "title": "", "text": document.text} for document in data.documents()]
        )
        queries = Dataset.from_list([{"id": key, "text": text} for key, text in data.queries.items()])
        self.dataset = {
            "default": {"test": {"corpus": corpus, "queries": queries, "relevant_docs": data.qrels, "top_ranked": None}}
        }
        self.data_loaded = True

    (task,) = read_mteb_tasks(["SciFact"])
    monkeypatch.setattr(type(task), "load_data", load_data)
    return task


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Mteb's task STSBenchmark with four pairs for its data."""
    from datasets import Dataset, DatasetDict

    pairs = {
        "sentence1": ["sort a list", "sort a list", "open a file", "open a file"],
        "sentence2": ["sort the list", "order its items", "read from a file", "the square root"],
        "score": [5.0, 4.0, 3.0, 0.0],
    }

    def load_data(self: Any, **_: Any) -> None:
        self.dataset = DatasetDict(test=Dataset.from_dict(pairs))
        self.data_loaded = True

    (task,) = read_mteb_tasks(["STSBenchmark"])
    monkeypatch.setattr(type(task), "load_data", load_data)
    return task


@pytest.fixture(scope="module")
def tiny() -> LLM2Comp:
    """The bundled model; a copy for these tests alone, which change its prompts."""
    return load(device="cpu", dtype="float32")


class TestBaselines:
    @pytest.mark.parametrize("name", ["random", f"mean:{BACKBONE}"])
    def test_the_same_as_ours(self, name: str, questions: Path, scifact: Any, tmp_path: Path) -> None:
        system = load_model(name)
        identity = identify(system, name)
        (theirs,) = evaluate_mteb(system, [scifact], identity, output_folder=tmp_path)
        ours = evaluate(system, read_beir(questions))
        assert theirs.metrics["ndcg_at_10"] == pytest.approx(ours.metrics["ndcg_at_10"], abs=1e-5)
        assert identity.name == ("local/random" if name == "random" else "local/mean-backbone")
        assert list(tmp_path.glob(f"results/{identity.name.replace('/', '__')}/{identity.revision}/SciFact.json"))

    def test_names_of_their_own(self) -> None:
        mean, echo = (
            identify(load_model(f"{pooling}:{BACKBONE}"), f"{pooling}:{BACKBONE}") for pooling in ("mean", "echo")
        )
        assert mean.name != echo.name
        assert mean.revision == echo.revision
        assert identify(load_model("random"), "random", "someone/else").name == "someone/else"


class TestScores:
    def test_the_same_as_ours(self, tiny: LLM2Comp, questions: Path, scifact: Any) -> None:
        (theirs,) = evaluate_mteb(tiny, [scifact], IDENTITY)
        ours = evaluate(tiny, read_beir(questions))
        assert 0.3 < ours.metrics["ndcg_at_10"] < 1
        for metric in ("ndcg_at_10", "map_at_1000", "recall_at_100", "mrr_at_10"):
            assert theirs.metrics[metric] == pytest.approx(ours.metrics[metric], abs=1e-5)  # which mteb rounds to
        assert (theirs.task, theirs.details["main_metric"]) == ("SciFact", "ndcg_at_10")
        assert theirs.samples is not None
        assert ours.samples is not None
        assert dict(zip(theirs.samples.ids or [], theirs.samples.values, strict=True)) == pytest.approx(
            dict(zip(ours.samples.ids or [], ours.samples.values, strict=True))
        )

    def test_other_kinds_of_tasks(self, tiny: LLM2Comp, sts: Any) -> None:
        from scipy.stats import spearmanr

        (result,) = evaluate_mteb(tiny, [sts], IDENTITY)
        vectors = tiny.encode(
            ["sort a list", "open a file", "sort the list", "order its items", "read from a file", "the square root"]
        )
        cosines = [float(vectors[left] @ vectors[right]) for left, right in ((0, 2), (0, 3), (1, 4), (1, 5))]
        assert result.metrics["cosine_spearman"] == pytest.approx(spearmanr(cosines, [5, 4, 3, 0]).statistic, abs=1e-5)
        json.dumps(result.metrics, allow_nan=False)
        assert result.samples is not None
        assert result.samples.values == pytest.approx(cosines, abs=1e-5)
        assert result.samples.truth == [5, 4, 3, 0]

    def test_two_models_are_compared_query_by_query(self, tiny: LLM2Comp, scifact: Any, tmp_path: Path) -> None:
        for name, model in (("tiny", tiny), ("random", load_model("random"))):
            write_results(tmp_path / f"{name}.json", list(evaluate_mteb(model, [scifact], IDENTITY)), {})
        (comparison,) = compare(
            [read_result_file(tmp_path / f"{name}.json") for name in ("random", "tiny")], resamples=200
        ).comparisons
        assert comparison.difference is not None
        assert comparison.count == (5, "query")
        assert comparison.words == "too few to tell (5)"

    def test_the_mean_over_several_parts_has_no_samples(self) -> None:
        (task,) = read_mteb_tasks(["STS17"])
        assert len(task.hf_subsets) > 1
        assert not has_samples(task)
        assert has_samples(read_mteb_task("STS17", subsets=["en-en"]))

    @pytest.mark.filterwarnings(
        "ignore::FutureWarning", "ignore::DeprecationWarning"
    )  # of mteb about sentence-transformers and itself
    def test_an_exported_model_in_plain_mteb(self, tiny: LLM2Comp, scifact: Any, tmp_path: Path) -> None:
        """Without any code of ours, as someone who downloaded the export would run it."""
        from sentence_transformers import SentenceTransformer

        (ours,) = evaluate_mteb(tiny, [scifact], IDENTITY)
        tiny.export(tmp_path / "plain")
        exported = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
        evaluated = mteb.evaluate(
            exported, scifact, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 8}, show_progress_bar=False
        )
        assert evaluated.task_results[0].get_score() == pytest.approx(ours.metrics["ndcg_at_10"], abs=1e-5)


class TestFolders:
    def test_mteb_reads_what_is_written(self, tiny: LLM2Comp, scifact: Any, sts: Any, tmp_path: Path) -> None:
        results = list(evaluate_mteb(tiny, [scifact, sts], identify(tiny, None), output_folder=tmp_path))
        folder = tmp_path / "results" / "llm2comp__llm2comp-tiny" / tiny.fingerprint
        assert {path.name for path in folder.iterdir()} == {
            "SciFact.json",
            "STSBenchmark.json",
            "model_meta.json",
            "run_settings.jsonl",
        }
        read = mteb.ResultCache(tmp_path).load_results(include_remote=False)
        (model,) = read.model_results
        assert (model.model_name, model.model_revision) == ("llm2comp/llm2comp-tiny", tiny.fingerprint)
        scores = {result.task_name: result.get_score() for result in model.task_results}
        assert scores == pytest.approx(
            {"SciFact": results[0].metrics["ndcg_at_10"], "STSBenchmark": results[1].metrics["cosine_spearman"]}
        )
        meta = json.loads((folder / "model_meta.json").read_text())
        assert (meta["license"], meta["embed_dim"], meta["max_tokens"], meta["use_instructions"]) == (
            "cc-by-sa-4.0",
            256,
            512,
            False,
        )
        assert type(describe_for_mteb(tiny, IDENTITY, {})).model_validate_json_resolved(
            json.dumps({k: v for k, v in meta.items() if k != "is_cross_encoder"})
        )

    def test_what_is_there_is_not_run_again(
        self, tiny: LLM2Comp, scifact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = list(evaluate_mteb(tiny, [scifact], IDENTITY, output_folder=tmp_path))
        monkeypatch.setattr(type(scifact), "load_data", lambda *_, **__: pytest.fail("not needed"))
        check_data([scifact], tmp_path)
        again = list(evaluate_mteb(tiny, [scifact], IDENTITY, output_folder=tmp_path))
        assert again[0].metrics == pytest.approx(first[0].metrics, abs=1e-5)  # read from a file, where they are rounded
        with pytest.raises(pytest.fail.Exception, match="not needed"):
            list(evaluate_mteb(tiny, [scifact], IDENTITY, output_folder=tmp_path, overwrite=True))

    def test_other_instructions_are_not_taken_for_the_same(self, tiny: LLM2Comp, scifact: Any, tmp_path: Path) -> None:
        list(evaluate_mteb(tiny, [scifact], IDENTITY, output_folder=tmp_path))
        other = {"SciFact": "find an answer: "}
        with pytest.raises(
            SettingsError,
            match="its result of SciFact was made with other instructions .* --output-folder, or --overwrite",
        ):
            list(evaluate_mteb(tiny, [scifact], IDENTITY, instructions=other, output_folder=tmp_path))
        list(evaluate_mteb(tiny, [scifact], IDENTITY, instructions=other, output_folder=tmp_path, overwrite=True))
        list(evaluate_mteb(tiny, [scifact], IDENTITY, instructions=other, output_folder=tmp_path))
        noted = json.loads((tmp_path / "llm2comp_prompts.json").read_text())
        assert noted == {"owner/name@abc": {"SciFact": {"query": "find an answer: ", "document": ""}}}

    def test_loading_by_the_metadata(self, tiny: LLM2Comp, scifact: Any) -> None:
        """What mteb does with a model that is registered with it."""
        meta = describe_for_mteb(tiny, identify(tiny, None), {})
        assert meta.loader is load_for_mteb
        loaded = meta.load_model(device="cpu")
        evaluated = mteb.evaluate(
            loaded, scifact, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 8}, show_progress_bar=False
        )
        (ours,) = evaluate_mteb(tiny, [scifact], IDENTITY)
        assert evaluated.task_results[0].get_score() == pytest.approx(
            ours.metrics["ndcg_at_10"], abs=0.01
        )  # it may load in bfloat16


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of mteb, as above
class TestCache:
    """mteb's own cache, as someone who calls `mteb.evaluate` fills it."""

    def scores(self, models: list[Any], task: Any, folder: Path) -> list[float]:
        options = {"co2_tracker": False, "encode_kwargs": {"batch_size": 8}, "show_progress_bar": False}
        cache = mteb.ResultCache(folder)
        return [mteb.evaluate(model, task, cache=cache, **options).task_results[0].get_score() for model in models]

    def test_two_models_in_folders_of_the_same_name(
        self, tiny: LLM2Comp, model: LLM2Comp, scifact: Any, tmp_path: Path
    ) -> None:
        for place, each in (("a", tiny), ("b", model)):
            each.save(tmp_path / place / "model")
        loaded = [load(tmp_path / place / "model", device="cpu", dtype="float32") for place in ("a", "b")]
        alone = [self.scores([each], scifact, tmp_path / f"cache{number}") for number, each in enumerate(loaded)]
        assert alone[0] != alone[1]
        together = self.scores([*loaded, *loaded], scifact, tmp_path / "cache")
        assert together == [*alone[0], *alone[1]] * 2
        folder = tmp_path / "cache" / "results" / "local__model"
        assert {path.name for path in folder.iterdir()} == {each.fingerprint for each in loaded}

    def test_a_model_that_changes_is_another(self, make_model: Any, scifact: Any, tmp_path: Path) -> None:
        changing = make_model()
        data = changing.model_card_data
        assert data.base_model_revision == changing.fingerprint
        revisions = {data.base_model_revision}
        changing.truncate_dim = 8
        revisions.add(data.base_model_revision)
        changing.prompts["STSBenchmark"] = "compare: "
        revisions.add(data.base_model_revision)
        changing.encoder.memory.data += 1
        changing.changed()
        revisions.add(data.base_model_revision)
        assert len(revisions) == 4
        data.base_model_revision = "mine"
        assert data.base_model_revision == "mine"

    def test_names(self, tiny: LLM2Comp, saved_model: Path, make_model: Any) -> None:
        meta = mteb.models.ModelMeta.from_sentence_transformer_model(tiny)
        assert (meta.name, meta.revision) == ("llm2comp/llm2comp-tiny", tiny.fingerprint)
        for loaded in (load(saved_model, device="cpu"), LLM2Comp(saved_model, device="cpu")):
            meta = mteb.models.ModelMeta.from_sentence_transformer_model(loaded)
            assert (meta.name, meta.revision) == ("local/model", loaded.fingerprint)
        assert make_model().model_card_data.model_name == "local/llm2comp"

    def test_exports_with_the_name_and_revision_on_their_cards(
        self, tiny: LLM2Comp, model: LLM2Comp, scifact: Any, tmp_path: Path
    ) -> None:
        from sentence_transformers import SentenceTransformer

        exported = []
        for place, each in (("a", tiny), ("b", model)):
            each.export(tmp_path / place / "plain")
            plain = SentenceTransformer(str(tmp_path / place / "plain"), device="cpu", local_files_only=True)
            card = (tmp_path / place / "plain" / "README.md").read_text(encoding="utf-8")
            (line,) = (line.strip(" `.") for line in card.splitlines() if "model_card_data.model_name" in line)
            exec(line, {"model": plain})
            exported.append(plain)
        assert exported[0].model_card_data.base_model_revision == tiny.fingerprint
        first, second, again = self.scores([*exported, exported[0]], scifact, tmp_path / "cache")
        assert first == again != second

    def test_plain_models_from_two_model_folders(
        self, tiny: LLM2Comp, model: LLM2Comp, scifact: Any, tmp_path: Path
    ) -> None:
        from sentence_transformers import SentenceTransformer

        for place, each in (("a", tiny), ("b", model)):
            each.save(tmp_path / place / "model")
        plain = [
            SentenceTransformer(str(tmp_path / place / "model"), device="cpu", trust_remote_code=True)
            for place in ("a", "b")
        ]
        names = [mteb.models.SentenceTransformerEncoderWrapper(each).mteb_model_meta for each in plain]
        assert [(meta.name, meta.revision) for meta in names] == [
            ("local/model", load(tmp_path / place / "model", device="cpu", dtype="float32").fingerprint)
            for place in ("a", "b")
        ]
        first, second, again = self.scores([*plain, plain[0]], scifact, tmp_path / "cache")
        assert first == again != second

    def test_a_plain_model_that_changes_is_another(self, saved_model: Path) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData
        from torch import nn

        plain = SentenceTransformer(str(saved_model), device="cpu", trust_remote_code=True)
        revisions = [plain.model_card_data.base_model_revision]
        plain.prompts["query"] = "another: "
        revisions.append(plain.model_card_data.base_model_revision)
        plain.max_seq_length = 16
        revisions.append(plain.model_card_data.base_model_revision)
        plain.truncate_dim = 8
        revisions.append(plain.model_card_data.base_model_revision)
        nn.init.normal_(plain[0].memory)
        revisions.append(plain.model_card_data.base_model_revision)
        assert len(set(revisions)) == 5
        data = SentenceTransformerModelCardData(model_name="me/mine")
        mine = SentenceTransformer(str(saved_model), device="cpu", trust_remote_code=True, model_card_data=data)
        assert (mine.model_card_data, data.model_name) == (data, "me/mine")


class TestNames:
    def test_where_results_are_filed(self, tiny: LLM2Comp, saved_model: Path, exported_model: Path) -> None:
        assert identify(tiny, None) == ("llm2comp/llm2comp-tiny", tiny.fingerprint)
        assert identify(tiny, None, "me/mine") == ("me/mine", tiny.fingerprint)
        model = load(saved_model, device="cpu")
        assert identify(model, str(saved_model)) == ("local/model", model.fingerprint)
        name, revision = identify(object(), str(exported_model))  # a model that has no fingerprint
        assert (name, len(revision)) == ("local/plain", 64)

    @pytest.mark.parametrize("name", ["mine", "a/b/c", "/b", "a/"])
    def test_a_name_that_no_hub_would_take(self, tiny: LLM2Comp, name: str) -> None:
        with pytest.raises(SettingsError, match="give owner/name"):
            identify(tiny, None, name)

    def test_tasks(self) -> None:
        assert [task.metadata.name for task in read_mteb_tasks(["SciFact", "NFCorpus", "SciFact"])] == [
            "SciFact",
            "NFCorpus",
        ]
        benchmark = read_mteb_tasks(["MTEB(eng, v2)"])
        assert len(benchmark) > 30
        with pytest.raises(SettingsError, match="Did you mean: 'SciFact'"):
            read_mteb_tasks(["SciFct"])
        with pytest.raises(SettingsError, match="has nothing in deu"):
            read_mteb_tasks(["SciFact"], languages=["deu"])
        (english,) = read_mteb_tasks(["STS17"], languages=["eng"])
        assert "es-es" not in english.hf_subsets
        assert "en-en" in english.hf_subsets
        in_german = {task.metadata.name for task in read_mteb_tasks(["MTEB(eng, v2)", "STS17"], languages=["deu"])}
        assert "STS17" in in_german
        assert "SciFact" not in in_german


class TestPrompts:
    @pytest.mark.parametrize(
        ("instructions", "query", "document", "other"),
        [
            ({}, "find: ", "", None),
            ({"SciFact": "claim: "}, "claim: ", "", None),
            ({"Retrieval": "search: "}, "search: ", "", None),
            ({"Retrieval": "search: ", "SciFact": "claim: "}, "claim: ", "", None),
            ({"SciFact-document": "passage: "}, "find: ", "passage: ", None),
            ({"query": "", "STS": "compare: "}, "", "", "compare: "),
            ({"STS": "compare: ", "STSBenchmark": "alike: "}, "find: ", "", "alike: "),
        ],
    )
    def test_an_instruction_is_for_queries(
        self, scifact: Any, sts: Any, instructions: dict[str, str], query: str, document: str, other: str | None
    ) -> None:
        prompts = resolve_prompts({"query": "find: ", "document": ""}, instructions, [scifact, sts])
        assert prompts_of(scifact, prompts) == {"query": query, "document": document}
        assert prompts_of(sts, prompts) == {"text": other}

    def test_the_texts_that_are_encoded(
        self, make_model: Callable[..., LLM2Comp], scifact: Any, sts: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = make_model()
        model.prompts["STS"] = "compare: "
        seen: list[str] = []
        token_ids = type(model.encoder).token_ids

        def recording(self: Any, texts: list[str], *rest: Any) -> Any:
            seen.extend(texts)
            return token_ids(self, texts, *rest)

        monkeypatch.setattr(type(model.encoder), "token_ids", recording)
        list(evaluate_mteb(model, [scifact, sts], IDENTITY, instructions={"SciFact": "claim:\n"}))
        assert {*("claim:\n" + text for text in QUESTIONS.values()), *ANSWERS} <= set(seen)
        assert {text for text in seen if text.startswith("compare: ")} == set(seen) - set(ANSWERS) - {
            "claim:\n" + text for text in QUESTIONS.values()
        }
        assert model.prompts == {"query": "find: ", "document": "", "STS": "compare: "}

    def test_prompts_are_saved_with_a_model(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model()
        model.prompts["SciFact-query"] = "claim: "
        model.save(tmp_path / "model")
        loaded = load(tmp_path / "model", device="cpu")
        assert loaded.prompts == {"query": "find: ", "document": "", "SciFact-query": "claim: "}
        assert loaded.fingerprint == model.fingerprint == make_model().fingerprint

    def test_tasks_made_of_tasks(self) -> None:
        (task,) = read_mteb_tasks(["CQADupstackRetrieval"])
        prompts = resolve_prompts({"query": "", "document": ""}, {"CQADupstackRetrieval": "same question: "}, [task])
        assert len(leaves(task)) == 12
        assert [prompts_of(leaf, prompts) for leaf in leaves(task)] == [
            {"query": "same question: ", "document": ""}
        ] * 12

    def test_what_is_no_task(self, scifact: Any) -> None:
        for key in ("SciFct", "SciFct-query", "scifact"):
            with pytest.raises(SettingsError, match=f"'{key}', which is no task and no type"):
                resolve_prompts({}, {key: "x"}, [scifact])

    def test_files(self, tmp_path: Path) -> None:
        file = tmp_path / "instructions.yaml"
        file.write_text('SciFact: "claim:\\n"\nSTS: ""\n', encoding="utf-8")
        assert read_instructions(file) == {"SciFact": "claim:\n", "STS": ""}
        for text in ("- a\n", "SciFact: 3\n", "a: [", "just text"):
            file.write_text(text, encoding="utf-8")
            with pytest.raises(SettingsError, match=r"instructions\.yaml: "):
                read_instructions(file)
        with pytest.raises(SettingsError, match="nowhere"):
            read_instructions(tmp_path / "nowhere")


def test_without_a_hub(monkeypatch: pytest.MonkeyPatch, tiny: LLM2Comp) -> None:
    """One question to the Hub, none of the half-minute of retries, one line."""
    from huggingface_hub import HfApi

    requested: list[str] = []

    def no_network(self: Any, name: str, **_: Any) -> None:
        requested.append(name)
        raise OSError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", no_network)
    (task,) = read_mteb_tasks(["NFCorpus"])
    with pytest.raises(
        LLM2CompError,
        match=r"NFCorpus: its data set mteb/nfcorpus cannot be loaded "
        r"\(no copy .*; the Hub: Name or service not known\)",
    ):
        list(evaluate_mteb(tiny, [task], IDENTITY))
    assert requested == ["mteb/nfcorpus"]
