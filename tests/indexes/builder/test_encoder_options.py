"""Options of the model are kept in the index, applied to queries, and hold for what is added."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import llm2comp
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes import (
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    encode_shard,
    merge_index,
    open_index,
    parse_part,
)
from llm2comp_indexes.format.manifest import read_manifest
from tests.word_encoder import WordEncoder

OPTIONS = EncoderOptions("float32", max_length=24, truncate_dim=4, device="cpu", batch_size=2)
LONG = "bread rises in the oven while the moon pulls the tides over the harbour " * 3


@pytest.fixture
def built(tmp_path: Path, corpus: Path, saved_model: Path) -> Path:
    build_index([corpus], tmp_path / "idx", model=saved_model, encoder=OPTIONS)
    return tmp_path / "idx"


def test_the_manifest_keeps_what_changes_vectors(built: Path) -> None:
    manifest = read_manifest(built)
    content = json.loads((built / "manifest.json").read_text())
    assert content["encoder"] == {"dtype": "float32", "max_length": 24, "truncate_dim": 4}
    assert manifest.encoder == OPTIONS.recorded
    assert manifest.dimension == 4


def test_queries_are_encoded_with_the_recorded_options(built: Path, saved_model: Path) -> None:
    reference = llm2comp.load(saved_model, dtype="float32", max_length=24, truncate_dim=4)
    for index in (open_index(built), open_index(built, model=saved_model)):
        for reopened in (index, pickle.loads(pickle.dumps(index)), copy.copy(index)):
            vector = reopened.model.encode_query([LONG])
            assert vector == pytest.approx(reference.encode_query([LONG]), abs=1e-6)
            assert reopened.search([LONG], k=1)


def test_other_options_are_refused_by_an_addition(built: Path, corpus: Path) -> None:
    before = (built / "manifest.json").read_bytes()
    for other in (EncoderOptions(dtype="bfloat16"), EncoderOptions(truncate_dim=8), EncoderOptions(max_length=64)):
        with pytest.raises(SettingsError, match="vectors of both do not fit together"):
            add_documents(built, [corpus], encoder=other)
    assert (built / "manifest.json").read_bytes() == before


def test_an_addition_encodes_as_the_build_did(
    built: Path, write_corpus: Callable[..., Path], saved_model: Path
) -> None:
    new = write_corpus([{"_id": "new", "text": LONG}], "new.jsonl")
    add_documents(built, [new], encoder=EncoderOptions(batch_size=1))
    stored = open_index(built).segments[-1].storage.read(np.array([0]))
    expected = llm2comp.load(saved_model, dtype="float32", max_length=24, truncate_dim=4).encode_document([LONG])
    assert stored == pytest.approx(expected, abs=1e-5)
    merge_index(built)
    assert read_manifest(built).encoder == OPTIONS.recorded


def test_an_index_without_options_records_none(tmp_path: Path, corpus: Path, saved_model: Path) -> None:
    build_index([corpus], tmp_path / "idx", model=saved_model)
    assert "encoder" not in json.loads((tmp_path / "idx" / "manifest.json").read_text())
    assert read_manifest(tmp_path / "idx").encoder == EncoderOptions()


def test_the_truncation_of_a_loaded_model_is_recorded(tmp_path: Path, corpus: Path, saved_model: Path) -> None:
    loaded = llm2comp.load(saved_model, truncate_dim=4)
    build_index([corpus], tmp_path / "idx", model=loaded)
    assert read_manifest(tmp_path / "idx").encoder == EncoderOptions(truncate_dim=4)
    assert open_index(tmp_path / "idx", model=saved_model).search(["bread"], k=1)
    with pytest.raises(IndexFolderError, match="holds the first 4 components of its vectors.*truncate_dim=4"):
        open_index(tmp_path / "idx", model=llm2comp.load(saved_model))


def test_options_for_a_model_that_is_loaded_are_refused(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match="max_length 24, truncate_dim 4 is given with a model that is loaded"):
        build_index([corpus], tmp_path / "idx", model=encoder, encoder=OPTIONS)
    assert not (tmp_path / "idx").exists()


def test_a_build_does_not_go_on_from_rows_of_another_precision(
    tmp_path: Path, corpus: Path, saved_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm2comp_indexes.builder import index as builder

    with monkeypatch.context() as patch:
        patch.setattr(builder, "finish_segment", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_index([corpus], tmp_path / "idx", model=saved_model, encoder=EncoderOptions(dtype="float32"))
    again = build_index([corpus], tmp_path / "idx", model=saved_model, encoder=EncoderOptions(dtype="bfloat16"))
    assert again.encoded == 5


def test_shards_keep_options_and_refuse_others(tmp_path: Path, corpus: Path, saved_model: Path) -> None:
    shards = tmp_path / "shards"
    for number, encoder in ((1, OPTIONS), (2, OPTIONS)):
        encode_shard([corpus], shards, parse_part(f"{number}/2"), model=saved_model, encoder=encoder)
    with pytest.raises(IndexFolderError, match="another corpus, model, encoding, store or chunking"):
        encode_shard([corpus], shards, parse_part("1/2"), model=saved_model, encoder=EncoderOptions("bfloat16", 24, 4))
    with pytest.raises(SettingsError, match="truncate_dim is 2, and the corpus of the shards was encoded with 4"):
        build_from_vectors(VectorFiles([shards]), tmp_path / "no", encoder=EncoderOptions(truncate_dim=2))
    build_from_vectors(VectorFiles([shards]), tmp_path / "idx")
    assert read_manifest(tmp_path / "idx").encoder == OPTIONS.recorded
    assert open_index(tmp_path / "idx").search([LONG], k=1)
    encode_shard([corpus], shards, parse_part("2/2"), model=saved_model, overwrite=True)
    with pytest.raises(IndexFolderError, match="shards of another"):
        build_from_vectors(VectorFiles([shards]), tmp_path / "no")
