"""Options of a model that encodes: what is recorded of them, and which fit to recorded ones."""

import pytest

import llm2comp
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import SettingsError


def test_only_options_that_change_vectors_are_recorded() -> None:
    options = EncoderOptions("float32", 64, 16, "openvino", "cpu", 8)
    assert options.to_json() == {"dtype": "float32", "max_length": 64, "truncate_dim": 16, "engine": "openvino"}
    assert EncoderOptions.from_json(options.to_json()) == options.recorded
    assert options.describe() == "dtype float32, max_length 64, truncate_dim 16, engine openvino"
    assert EncoderOptions("auto", engine="torch", device="cuda", batch_size=4).to_json() == {}


def test_recorded_options_are_kept_and_others_refused() -> None:
    recorded = EncoderOptions("float32", max_length=64)
    runtime = EncoderOptions("float32", device="cpu", batch_size=8)
    assert runtime.within(recorded, "idx") == EncoderOptions("float32", 64, device="cpu", batch_size=8)
    for other, message in (
        (EncoderOptions("bfloat16"), "dtype is bfloat16, and idx was encoded with float32"),
        (EncoderOptions("auto"), "dtype is auto, and idx was encoded with float32"),
        (EncoderOptions(max_length=32), "max_length is 32, and idx was encoded with 64"),
        (EncoderOptions(truncate_dim=8), "truncate_dim is 8, and idx was encoded with whole vectors"),
        (EncoderOptions(engine="openvino"), "engine is openvino, and idx was encoded with torch"),
    ):
        with pytest.raises(SettingsError, match=message):
            other.within(recorded, "idx")


def test_queries_may_be_encoded_with_another_dtype_and_engine_but_not_length() -> None:
    recorded = EncoderOptions("float32", 64, engine="openvino")
    other = EncoderOptions("bfloat16", engine="torch")
    assert other.within(recorded, "idx", for_queries=True) == EncoderOptions("bfloat16", 64, engine="torch")
    with pytest.raises(SettingsError, match="max_length is 32"):
        EncoderOptions(max_length=32).within(recorded, "idx", for_queries=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "float64"}, "dtype is 'float64'; give auto, float32 or bfloat16"),
        ({"engine": "tpu"}, "engine is 'tpu'; give auto, torch or openvino"),
        ({"max_length": 0}, "max_length is 0, expected a whole number of at least 1"),
        ({"truncate_dim": True}, "truncate_dim is True"),
        ({"batch_size": -1}, "batch_size is -1"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EncoderOptions(**values)


@pytest.mark.parametrize("content", [{"device": "cpu"}, {"dtype": 4}, {"max_length": 0}, {"dtype": "float64"}])
def test_malformed_records_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="device|dtype|max_length"):
        EncoderOptions.from_json(content)


def test_a_model_is_loaded_with_length_and_truncation(saved_model: object) -> None:
    model = llm2comp.load(saved_model, max_length=20, truncate_dim=4)
    whole = llm2comp.load(saved_model)
    text = "a text of more than twenty tokens, whatever the tokenizer is " * 4
    assert model.encode_document([text]).shape == (1, 4)
    assert model.max_seq_length == 20
    assert model.fingerprint != whole.fingerprint
    short = llm2comp.load(saved_model, truncate_dim=4).encode_document(["one"])[0]
    first = whole.encode_document(["one"])[0][:4]
    assert short == pytest.approx(first / (first**2).sum() ** 0.5, abs=1e-6)


def test_a_truncation_beyond_the_dimension_is_refused(saved_model: object) -> None:
    dimension = llm2comp.load(saved_model).get_embedding_dimension()
    with pytest.raises(SettingsError, match=f"truncate_dim is 9999, and vectors of this model have {dimension} comp"):
        llm2comp.load(saved_model, truncate_dim=9999)
