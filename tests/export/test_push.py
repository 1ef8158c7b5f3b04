"""Models are checked and uploaded; the Hub is a stand-in that remembers what it was asked for."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from llm2comp.bundled_models import bundled_folder
from llm2comp.errors import LLM2CompError, ModelFolderError, SettingsError
from llm2comp.export import push
from llm2comp.export.push import push_folder


class Hub:
    """Stands for `HfApi`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._error = error

    def create_repo(self, name: str, **options: Any) -> None:
        if self._error:
            raise self._error
        self.asked.append((name, options))

    def upload_folder(self, **options: Any) -> Any:
        self.asked.append(("upload", options))
        return SimpleNamespace(commit_url="https://hub/o/n/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub()
    monkeypatch.setattr(push, "HfApi", lambda: stand_in)
    return stand_in


def test_a_model_is_uploaded_with_its_card_and_without_locks(hub: Hub) -> None:
    assert push_folder("llm2comp-tiny", "o/n", private=True) == "https://hub/o/n/commit/1"
    (created, options), (_, upload) = hub.asked
    assert (created, options) == ("o/n", {"private": True, "exist_ok": True})
    assert upload["folder_path"] == bundled_folder("llm2comp-tiny")
    assert upload["commit_message"] == "Upload llm2comp-tiny"
    assert ".*" in upload["ignore_patterns"]


def test_a_damaged_model_is_not_sent(hub: Hub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundled_folder("llm2comp-tiny"), tmp_path / "model"))
    (folder / "modules.json").write_text("[]")
    with pytest.raises(ModelFolderError, match="modules.json has 2 bytes"):
        push_folder(folder, "o/n")
    with pytest.raises(ModelFolderError, match="no model of llm2comp or sentence-transformers"):
        push_folder(tmp_path, "o/n")
    assert hub.asked == []


@pytest.mark.parametrize("name", ["name", "a/b/c", "o/..", "o/a b"])
def test_names_that_are_none(name: str, hub: Hub) -> None:
    with pytest.raises(SettingsError, match="names no repository of the Hub"):
        push_folder("llm2comp-tiny", name)
    assert hub.asked == []


def refusal(status: int) -> HfHubHTTPError:
    request = httpx.Request("POST", "https://hub")
    return HfHubHTTPError("no", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LocalTokenNotFoundError("no token"), "not logged in to the Hub: run `hf auth login`, or set HF_TOKEN"),
        (refusal(401), "the Hub does not know you: run `hf auth login`"),
        (refusal(403), "your token may not write there"),
        (refusal(500), "the Hub refused"),
        (OSError("unreachable"), r"the Hub did not answer \(unreachable\); nothing was changed"),
    ],
)
def test_refusals_are_one_line(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "HfApi", lambda: Hub(error))
    with pytest.raises(LLM2CompError, match=message) as refused:
        push_folder("llm2comp-tiny", "o/n")
    assert "\n" not in str(refused.value)
