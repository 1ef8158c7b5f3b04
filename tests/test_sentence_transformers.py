"""The model is a SentenceTransformer: copies, processes, its trainer."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.model import LLM2Comp
from tests.test_model import TEXTS, close


class TestSentenceTransformers:
    def test_is_one(self, model: LLM2Comp) -> None:
        assert isinstance(model, SentenceTransformer)
        assert model.get_embedding_dimension() == 64
        assert model.max_seq_length == 64
        similarity = model.similarity(model.encode(TEXTS), model.encode(TEXTS))
        close(similarity.diagonal(), 1)

    def test_its_way_of_loading_finds_bundled_models(self) -> None:
        assert LLM2Comp.load("llm2comp-tiny").fingerprint == llm2comp.load("llm2comp-tiny").fingerprint

    def test_copies_and_pickles(self, model: LLM2Comp) -> None:
        expected = model.encode(TEXTS)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            close(twin.encode(TEXTS), expected)
            assert twin.fingerprint == model.fingerprint
            with torch.no_grad():
                twin.encoder.memory.add_(1)
            close(model.encode(TEXTS), expected)

    @pytest.mark.slow
    def test_several_processes(self, saved_model: Path, tmp_path: Path) -> None:
        script = tmp_path / "several.py"
        script.write_text(
            "import numpy as np\nimport llm2comp\n\n"
            "if __name__ == '__main__':\n"
            f"    model = llm2comp.load({str(saved_model)!r}, device='cpu', dtype='float32')\n"
            "    texts = [f'text {number}' for number in range(20)]\n"
            "    several = model.encode(texts, device=['cpu', 'cpu'], chunk_size=5)\n"
            "    np.testing.assert_allclose(several, model.encode(texts), atol=1e-5)\n"
        )
        subprocess.run([sys.executable, str(script)], check=True, timeout=600)

    def test_its_trainer_changes_the_fingerprint(self, make_model: Callable[..., LLM2Comp]) -> None:
        """Training by other hands than this package's, in any of torch's ways of stepping."""
        for way in ("single", "foreach", "fused"):
            model = make_model()
            before = model.fingerprint
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=1e-4, foreach=way == "foreach", fused=way == "fused")
            model(model.preprocess(["a text"]))["sentence_embedding"].sum().backward()
            assert model.fingerprint == before
            optimizer.step()
            assert model.fingerprint != before

    def test_its_trainer_resumes(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        rows = Dataset.from_dict({"anchor": ["a", "b", "c", "d"] * 4, "positive": ["A.", "B.", "C.", "D."] * 4})

        def train(model: LLM2Comp, **options: Any) -> LLM2Comp:
            settings = SentenceTransformerTrainingArguments(
                str(tmp_path),
                max_steps=4,
                save_steps=2,
                per_device_train_batch_size=4,
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                learning_rate=1e-3,
            )
            SentenceTransformerTrainer(model, settings, rows, loss=MultipleNegativesRankingLoss(model)).train(**options)
            return model.eval()

        whole = train(make_model())
        resumed = train(make_model(), resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        close(resumed.encode(TEXTS), whole.encode(TEXTS))
        assert np.abs(whole.encode(TEXTS) - make_model().encode(TEXTS)).max() > 1e-3
