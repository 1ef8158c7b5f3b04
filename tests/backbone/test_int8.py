"""Weights stored as int8 come back close to what they were, the same in every precision, or are refused in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

import llm2comp
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.int8 import round_to_int8, store_as_int8
from llm2comp.backbone.loading import find_source, load_language_model
from llm2comp.checked_json import JsonFormat
from llm2comp.errors import ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.model_folder import write_config
from tests.families import build, some_texts
from tests.test_model_folder import config_of, load

FILE = "backbone/model.int8.safetensors"
PROJECTION = "model.layers.0.mlp.up_proj.weight"
TEXTS = [
    "A memory token stands for the whole text.",
    "Return the square root of x.",
    "The city lies on both banks of a river that rises in the mountains to the south.",
    "🍵",
]


@pytest.fixture(scope="module")
def whole_model(make_model: Callable[..., LLM2Comp]) -> LLM2Comp:
    """A model whose weights are all in its folder."""
    return make_model(adapter=None)


@pytest.fixture(scope="module")
def int8_model(whole_model: LLM2Comp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "model"
    whole_model.save(folder, weights_dtype="int8")
    return folder


@pytest.fixture
def folder(int8_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_model, tmp_path / "model"))


class TestRows:
    def error(self, rows: Tensor) -> Tensor:
        """Norm of each row's error over the norm of the row."""
        exact = rows.double()
        return (round_to_int8(rows).double() - exact).norm(dim=1) / exact.norm(dim=1)

    def test_the_values_are_steps_of_a_scale(self) -> None:
        rows = torch.tensor([[127.0, -64.4, 1.6], [-0.5, 0.25, 0.0]])
        step = 0.5 / 127
        half = float(torch.tensor(step).half())
        half = half if half >= step else float(torch.nextafter(torch.tensor(step).half(), torch.tensor(1.0).half()))
        expected = torch.tensor([[127.0, -64.0, 2.0], [-127 * half, round(0.25 / half) * half, 0.0]])
        assert torch.allclose(round_to_int8(rows), expected, rtol=1e-6, atol=0)

    def test_random_rows_change_by_less_than_a_hundredth(self) -> None:
        assert self.error(torch.randn(200, 576, generator=torch.Generator().manual_seed(0))).max() < 0.01

    @pytest.mark.parametrize("size", [1e-30, 1e-9, 1e-6, 1e-4, 1e4, 1e9, 1e30])
    def test_no_size_of_numbers_is_lost(self, size: float) -> None:
        """Scales below and above float16's range too."""
        assert self.error(size * torch.randn(20, 64, generator=torch.Generator().manual_seed(0))).max() < 1 / 64

    def test_large_numbers_leave_the_small_ones_of_other_groups_their_steps(self) -> None:
        rows = torch.randn(10, 576, generator=torch.Generator().manual_seed(0))
        rows[:, 64:] *= 10
        rounded = round_to_int8(rows)[:, :64]
        assert (rounded - rows[:, :64]).norm() / rows[:, :64].norm() < 0.01

    def test_zeros_stay_zeros(self) -> None:
        assert torch.equal(round_to_int8(torch.zeros(3, 5)), torch.zeros(3, 5))

    def test_rows_with_outliers_are_exact_and_the_others_are_not(self) -> None:
        rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
        rows[1, 7] = 500
        rows[2, 7] = torch.inf
        rounded = round_to_int8(rows)
        assert torch.equal(rounded[1:], rows[1:])
        assert not torch.equal(rounded[0], rows[0])

    def test_rounding_again_changes_nothing(self) -> None:
        once = round_to_int8(torch.randn(50, 64, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(round_to_int8(once), once)

    def test_vectors_and_integers_are_unchanged(self) -> None:
        for tensor in (torch.rand(7), torch.arange(6).view(2, 3), torch.zeros(0, 4)):
            assert round_to_int8(tensor) is tensor


class TestModel:
    def test_the_bundled_model_keeps_its_vectors(self, tmp_path: Path) -> None:
        model = llm2comp.load(device="cpu", dtype="float32")
        model.save(tmp_path / "plain")
        model.save(tmp_path / "model", weights_dtype="int8")
        cosines = (load(tmp_path / "model").encode(TEXTS) * model.encode(TEXTS)).sum(1)
        assert cosines.min() > 0.999
        sizes = [
            sum(file.stat().st_size for file in (tmp_path / name / "backbone").iterdir()) for name in ("model", "plain")
        ]
        assert sizes[0] < 0.3 * sizes[1]

    def test_only_matrices_of_the_backbone_are_rounded(self, whole_model: LLM2Comp, int8_model: Path) -> None:
        loaded = load(int8_model)
        assert torch.equal(loaded.encoder.memory, whole_model.encoder.memory)
        weights = loaded.encoder.backbone.weights()
        for name, tensor in whole_model.encoder.backbone.weights().items():
            assert torch.equal(weights[name], round_to_int8(tensor)), name

    def test_the_fingerprint_is_that_of_the_rounded_weights(self, whole_model: LLM2Comp, int8_model: Path) -> None:
        loaded = load(int8_model)
        assert loaded.fingerprint == config_of(int8_model)["fingerprint"] != whole_model.fingerprint
        loaded.changed()  # so that it is computed
        assert loaded.fingerprint == config_of(int8_model)["fingerprint"]

    def test_bfloat16_is_the_same_up_to_the_cast(self, int8_model: Path) -> None:
        exact, half = (load(int8_model, dtype).encoder.backbone.weights() for dtype in ("float32", "bfloat16"))
        assert all(torch.equal(exact[name].bfloat16(), half[name]) for name in exact)
        assert load(int8_model, "bfloat16").fingerprint == config_of(int8_model)["fingerprint"]

    def test_saving_again_writes_the_same_file(self, int8_model: Path, tmp_path: Path) -> None:
        load(int8_model).save(tmp_path / "again", weights_dtype=torch.int8)
        assert config_of(tmp_path / "again") == config_of(int8_model)

    def test_saving_in_float32_keeps_vectors_and_fingerprint(self, int8_model: Path, tmp_path: Path) -> None:
        loaded = load(int8_model)
        loaded.save(tmp_path / "plain")
        assert config_of(tmp_path / "plain")["format_version"] == 1
        plain = load(tmp_path / "plain")
        assert plain.fingerprint == loaded.fingerprint
        assert np.array_equal(plain.encode(TEXTS), loaded.encode(TEXTS))

    def test_exports_without_int8(self, int8_model: Path, tmp_path: Path) -> None:
        loaded = load(int8_model)
        loaded.export(tmp_path / "plain")
        assert load_file(tmp_path / "plain" / "model.safetensors")["layers.0.mlp.up_proj.weight"].dtype == torch.float32
        plain = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
        assert np.allclose(plain.encode(TEXTS), loaded.encode(TEXTS), atol=1e-5)

    def test_sentence_transformers_loads_it(self, int8_model: Path) -> None:
        other = SentenceTransformer(str(int8_model), device="cpu", trust_remote_code=True)
        assert np.allclose(other.encode(TEXTS), load(int8_model).encode(TEXTS), atol=1e-6)

    def test_an_adapter_stays_exact(self, make_model: Callable[..., LLM2Comp], tmp_path: Path) -> None:
        model = make_model()
        model.save(tmp_path / "model", weights_dtype="int8")
        loaded = load(tmp_path / "model")
        weights = loaded.encoder.backbone.adapter_weights()
        assert all(
            torch.equal(weights[name], tensor) for name, tensor in model.encoder.backbone.adapter_weights().items()
        )
        loaded.changed()
        assert loaded.fingerprint == config_of(tmp_path / "model")["fingerprint"]

    def test_older_versions_say_that_they_cannot_read_it(self, int8_model: Path) -> None:
        config = config_of(int8_model)
        first = JsonFormat("model configuration", ModelFolderError, "", version=1, version_field="format_version")
        with pytest.raises(ModelFolderError, match="reads up to 1: pip install --upgrade llm2comp"):
            first.check_version(config, int8_model)

    def test_other_precisions_are_refused(self, whole_model: LLM2Comp, tmp_path: Path) -> None:
        for wrong in ("int4", torch.int16):
            with pytest.raises(SettingsError, match="weights_dtype is .*; give float32, bfloat16 or int8"):
                whole_model.save(tmp_path / "model", weights_dtype=wrong)
        assert not list(tmp_path.iterdir())


class TestFamilies:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral", "qwen2_moe", "falcon"])
    @pytest.mark.parametrize("shard", ["5GB", "40KB"])
    def test_loads_what_transformers_saved(self, family: str, shard: str, tmp_path: Path) -> None:
        model = build(family)
        model.save_pretrained(tmp_path, max_shard_size=shard)
        store_as_int8(tmp_path)
        assert not [path for path in tmp_path.iterdir() if "safetensors" in path.name and ".int8." not in path.name]
        loaded = load_language_model(find_source(tmp_path), dtype=torch.float32)
        expected = {name: round_to_int8(tensor) for name, tensor in model.state_dict().items()}
        assert loaded.state_dict().keys() == expected.keys()
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        tokens = some_texts(9)[0][None]
        model.load_state_dict(expected)
        assert torch.allclose(loaded(tokens).logits, model(tokens).logits, atol=1e-4)


def replace(folder: Path, **tensors: Tensor | None) -> None:
    """Replaces parts of a projection, or removes them, and makes the checksums fit."""
    weights = load_file(folder / FILE)
    for part, tensor in tensors.items():
        name = PROJECTION + ("" if part == "values" else f".int8_{part}")
        weights.pop(name)
        if tensor is not None:
            weights[name] = tensor
    save_file(weights, folder / FILE, metadata={"format": "pt"})
    write_config(folder, {})


class TestDamage:
    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"scale": None}, "up_proj.weight.int8_scale is missing"),
            ({"exact_rows": None}, "up_proj.weight.int8_exact_rows is missing"),
            ({"scale": torch.ones(128, 2).half()}, r"shape \(128, 2\) .* or per 64 numbers of a row"),
            ({"scale": torch.ones(5).half()}, r"shape \(5,\) .*, int8 weights of shape \(128, 64\) need one float16"),
            ({"scale": torch.ones(128)}, r"shape \(128,\) \(torch.float32\), .* need one float16 per row"),
            ({"scale": torch.full((128,), torch.nan).half()}, "scales that are negative or not finite"),
            ({"exact_rows": torch.tensor([0])}, "does not number rows"),
            ({"exact_rows": torch.tensor([128]), "exact": torch.ones(1, 64)}, "does not number rows"),
            ({"values": torch.ones(64, dtype=torch.int8)}, "need one float16 per row"),
            ({"values": torch.ones(127, 64, dtype=torch.int8)}, "need one float16 per row"),
        ],
        ids=str,
    )
    def test_parts_that_do_not_fit(self, folder: Path, parts: dict[str, Any], message: str) -> None:
        replace(folder, **parts)
        with pytest.raises(ModelFolderError, match=message) as error:
            load(folder)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith("copy the model folder again")

    def test_a_file_cut_short_or_altered(self, folder: Path) -> None:
        content = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(content[:-10])
        with pytest.raises(ModelFolderError, match="bytes, .* were written"):
            load(folder)
        (folder / FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ModelFolderError, match="SHA-256 differs"):
            load(folder)
        (folder / FILE).write_bytes(b"no weights")
        write_config(folder, {})
        with pytest.raises(ModelFolderError, match="model.int8.safetensors: .*copy the model folder again"):
            load(folder)

    def test_a_model_with_one_scale_for_each_row(self, folder: Path) -> None:
        """As models were saved before groups of numbers had scales."""
        values = torch.randint(-127, 128, (128, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        scale = torch.linspace(0.001, 0.002, 128).half()
        replace(folder, values=values, scale=scale, exact=torch.zeros(0, 64), exact_rows=torch.zeros(0).long())
        projection = load(folder).encoder.backbone.language_model.get_parameter(PROJECTION)
        assert torch.equal(projection, values.float() * scale.float()[:, None])

    def test_the_backbone_alone_loads(self, int8_model: Path) -> None:
        assert Backbone.load(int8_model / "backbone").vocabulary_size == 320
