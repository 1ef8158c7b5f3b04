"""Export as a plain sentence-transformers folder: the same vectors without this package, or no folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

import llm2comp.export
from llm2comp.backbone.backbone import BackboneReference
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from tests.conftest import QUERY_INSTRUCTION
from tests.test_model import TEXTS, close

LONG = [" ".join(f"word{number}" for number in range(length)) for length in (10, 20, 40, 1000)]
"""Shorter and longer than the 64 tokens of the shared model."""
AWKWARD = [
    *TEXTS,
    *LONG,
    " ",
    "\n\n",
    "  indented\n\ttext  ",
    "</s>" * 30,
    "<s>",
    "<|memory_0|> <|memory_3|>",
    "<unk></s><|memory_1|>x",
    "e\u0301 \u00e9 ﬁ Ⅷ \u200b\ufeff",
]


def plain(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


class TestTheSameVectors:
    @pytest.mark.parametrize("batch_size", [1, 7, 100])
    def test_whatever_the_text(self, model: LLM2Comp, exported_model: Path, batch_size: int) -> None:
        exported = plain(exported_model)
        assert not isinstance(exported, LLM2Comp)
        for encode in ("encode", "encode_query", "encode_document"):
            close(getattr(exported, encode)(AWKWARD, batch_size=batch_size), getattr(model, encode)(AWKWARD))

    def test_long_texts_leave_room_for_the_memory_tokens(self, model: LLM2Comp, exported_model: Path) -> None:
        features = plain(exported_model).preprocess(LONG[-1:])
        assert features["input_ids"].shape == (1, 64)
        assert features["input_ids"][0, -4:].tolist() == [320, 321, 322, 323]
        assert features["input_ids"][0, :-4].tolist() == model.encoder.token_ids(LONG[-1:])[0]

    @pytest.mark.parametrize(
        "options",
        [{"adapter": None}, {"normalize": False}, {"memory_tokens": 1, "query_instruction": ""}, {"max_length": 1024}],
        ids=str,
    )
    def test_other_models(self, make_model: Callable[..., LLM2Comp], tmp_path: Path, options: dict[str, Any]) -> None:
        model = make_model(**options)
        model.export(tmp_path / "plain")
        exported = plain(tmp_path / "plain")
        assert len(exported) == (3 if options.get("normalize") is False else 4)
        assert exported.max_seq_length == model.max_seq_length
        close(exported.encode_query(AWKWARD), model.encode_query(AWKWARD))

    def test_a_backbone_that_the_model_only_names(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        """A saved model may name its backbone on the Hub; an export holds all weights."""
        model = make_model()
        model.encoder.backbone.reference = BackboneReference("owner/name", "c0ffee")
        model.export(tmp_path / "plain")
        close(plain(tmp_path / "plain").encode(TEXTS), model.encode(TEXTS))

    def test_a_saved_model(self, saved_model: Path, tmp_path: Path) -> None:
        model = llm2comp.load(saved_model, device="cpu", dtype="float32")
        report = model.export(tmp_path / "plain")
        assert report.difference < 1e-5
        close(plain(tmp_path / "plain").encode(TEXTS), model.encode(TEXTS))

    def test_the_original_stays_as_it_was(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model()
        vectors, fingerprint = model.encode(TEXTS), model.fingerprint
        model.export(tmp_path / "plain")
        assert (model.encode(TEXTS) == vectors).all()
        assert model.fingerprint == fingerprint
        assert model.encoder.backbone.has_adapter
        assert model.encoder.backbone.vocabulary_size == 320

    def test_all_prompts_come_along(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model()
        model.prompts["STS12"] = "compare: "
        model.export(tmp_path / "plain")
        exported = plain(tmp_path / "plain")
        assert exported.prompts == {"query": QUERY_INSTRUCTION, "document": "", "STS12": "compare: "}
        assert exported.similarity_fn_name == "cosine"
        close(exported.encode(TEXTS, prompt_name="STS12"), model.encode(["compare: " + text for text in TEXTS]))


class TestElsewhere:
    def test_without_this_package(self, model: LLM2Comp, exported_model: Path, tmp_path: Path) -> None:
        """In another process, where this package cannot be imported."""
        (tmp_path / "texts.json").write_text(json.dumps(AWKWARD))
        script = (
            "import json, sys\n"
            "sys.modules['llm2comp'] = None\n"
            "from sentence_transformers import SentenceTransformer\n"
            "import numpy as np\n"
            f"model = SentenceTransformer({str(exported_model)!r}, device='cpu')\n"
            "texts = json.load(open('texts.json'))\n"
            "np.save('vectors.npy', np.stack([model.encode_document(texts), model.encode_query(texts)]))\n"
            "assert not [name for name in sys.modules if name.startswith('llm2comp') and name != 'llm2comp']\n"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=300)
        close(
            np.load(tmp_path / "vectors.npy"), np.stack([model.encode_document(AWKWARD), model.encode_query(AWKWARD)])
        )

    def test_bfloat16(self, model: LLM2Comp, exported_model: Path, tmp_path: Path) -> None:
        report = model.export(tmp_path / "plain", dtype="bfloat16")
        with safe_open(tmp_path / "plain" / "model.safetensors", "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118  no mapping
        assert (tmp_path / "plain" / "model.safetensors").stat().st_size < 0.6 * (
            exported_model / "model.safetensors"
        ).stat().st_size
        exported = plain(tmp_path / "plain")
        assert exported[0].config.dtype == torch.bfloat16
        cosines = (exported.encode(TEXTS) * model.encode(TEXTS)).sum(1)
        assert 0.99 < cosines.min() < 0.999999
        assert 0.99 < report.cosine < 0.999999
        assert report.difference < 1e-5

    def test_files_say_nothing_of_where_they_were_made(self, exported_model: Path) -> None:
        files = [path for path in exported_model.rglob("*") if path.is_file()]
        assert not [
            path
            for path in files
            if b"plain.saving" in path.read_bytes() or str(exported_model.parent).encode() in path.read_bytes()
        ]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o644}

    def test_the_card_keeps_the_licence_and_its_code_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "tiny"
        llm2comp.load(device="cpu", dtype="float32").export(folder)
        _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        facts = yaml.safe_load(head)
        assert (facts["license"], facts["language"], facts["library_name"]) == (
            "cc-by-sa-4.0",
            "en",
            "sentence-transformers",
        )
        assert "How it was made" in text
        code = text.split("```python\n")[1].split("```")[0]
        monkeypatch.chdir(tmp_path)
        exec(code, {})
        first, second = (
            float(number)
            for number in capsys.readouterr().out.strip().removeprefix("tensor([[").removesuffix("]])").split(",")
        )
        assert first > second  # a folder is deleted by removing it rather than by its square root


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestRefusals:
    def test_cluster_pooling(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model(pooling={"mode": "cluster", "threshold": 0.9})
        with pytest.raises(SettingsError, match="the pooling is .*cluster.*has no module"):
            model.export(tmp_path / "plain")
        assert left_in(tmp_path) == []

    def test_bfloat16_in_memory(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="load it with dtype='float32'"):
            make_model(dtype="bfloat16").export(tmp_path / "plain")
        assert left_in(tmp_path) == []

    def test_a_folder_that_holds_something(self, model: LLM2Comp, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        for target in (tmp_path, tmp_path / "mine.txt"):
            with pytest.raises(ModelFolderError, match="not empty"):
                model.export(target)
        assert left_in(tmp_path) == ["mine.txt"]

    def test_an_unknown_precision(self, model: LLM2Comp, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="give auto, float32 or bfloat16"):
            model.export(tmp_path / "plain", dtype="int8")

    def test_a_tokenizer_of_another_kind(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        class Letters:
            bos_token_id, all_special_tokens = 1, ()

        model = make_model()
        stand_in: Any = Letters()
        model.encoder.tokenizer = stand_in
        with pytest.raises(BackboneError, match="Letters is no tokenizer of the tokenizers library"):
            model.export(tmp_path / "plain")
        assert left_in(tmp_path) == []

    def test_a_language_model_of_code_of_its_own(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model()
        language_model = model.encoder.backbone.language_model
        language_model.__class__ = type("MyLlama", (type(language_model),), {"__module__": "transformers_modules.mine"})
        with pytest.raises(BackboneError, match="MyLlama is code that comes with its weights"):
            model.export(tmp_path / "plain")
        assert left_in(tmp_path) == []


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


class TestItsOwnCheck:
    """Faults in the exported files are found before the folder appears."""

    FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
        "reads one way only": (
            "write_backbone",
            lambda folder: edit(folder / "config.json", is_causal=True),
            "vectors differ by up to",
        ),
        "windows": (
            "write_backbone",
            lambda folder: edit(folder / "config.json", model_type="mistral", sliding_window=8),
            "vectors differ by up to",
        ),
        "special tokens": (
            "write_tokenizer",
            lambda folder: edit(folder / "tokenizer_config.json", split_special_tokens=False),
            "into other tokens",
        ),
        "another class": (
            "write_tokenizer",
            lambda folder: edit(folder / "tokenizer_config.json", tokenizer_class="GPTNeoXTokenizer"),
            "sdpa attention it",
        ),
        "length": (
            "write_tokenizer",
            lambda folder: edit(folder / "tokenizer_config.json", model_max_length=65),
            "into other tokens",
        ),
        "weights": ("write_backbone", lambda folder: (folder / "model.safetensors").unlink(), "does not load"),
    }

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault(self, model: LLM2Comp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
        function, damage, message = self.FAULTS[fault]
        write = getattr(llm2comp.export, function)

        def write_and_damage(folder: Path, *arguments: Any) -> Any:
            written = write(folder, *arguments)
            damage(folder)
            return written

        monkeypatch.setattr(llm2comp.export, function, write_and_damage)
        with pytest.raises(
            BackboneError, match=f"LlamaForCausalLM cannot be exported: .*{message}.*nothing was written"
        ):
            model.export(tmp_path / "new" / "plain")
        assert left_in(tmp_path) == []

    def test_an_interruption_leaves_nothing(
        self, model: LLM2Comp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(llm2comp.export, "write_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.export(tmp_path / "plain")
        assert left_in(tmp_path) == []
