"""A model folder uploaded to the Hub of Hugging Face, from which `llm2comp.load("owner/name")` reads it."""

import logging
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from llm2comp.errors import LLM2CompError, ModelFolderError, SettingsError, one_line
from llm2comp.model_folder import CONFIG_FILE, check_folder, find_folder

__all__ = ["push_folder"]

_NOT_UPLOADED = [".*", "*.lock"]
_logger = logging.getLogger(__name__)


def push_folder(model: str | Path, repository: str, *, private: bool = False, message: str = "") -> str:
    """Address of the commit that holds the model; everything is checked before anything is sent.

    One that names a wheel in place of its weights is uploaded as it is, with a warning.

    Args:
        model: Folder of a model of llm2comp, of a plain sentence-transformers model that was exported, or the name of a
            bundled one.
        repository: `owner/name`; made if it does not exist.
        private: Whether a repository that is made can be seen by its owner alone.
        message: Of the commit; empty: the name of the folder.

    Raises:
        SettingsError: The repository's name is not of the form owner/name.
        ModelFolderError: There is no such folder, or its files are damaged.
        LLM2CompError: The Hub refuses, or does not answer.
    """
    if repository.count("/") != 1:
        raise SettingsError(f"{repository!r} names no repository of the Hub: give OWNER/NAME")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise SettingsError(f"{repository!r} names no repository of the Hub: {one_line(error)}") from error
    folder = _checked(model)
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message or f"Upload {folder.resolve().name}",
            ignore_patterns=_NOT_UPLOADED,
        )
    except LocalTokenNotFoundError as error:
        raise LLM2CompError(f"{repository}: not logged in to the Hub: run `hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise LLM2CompError(_refusal(repository, error)) from error
    except Exception as error:  # no network: a dozen kinds, from the hub's client and from the HTTP library below it
        raise LLM2CompError(f"{repository}: the Hub did not answer ({one_line(error)}); nothing was changed") from error
    return str(commit.commit_url)


def _checked(model: str | Path) -> Path:
    """The folder of a model whose files are whole."""
    folder = find_folder(model)
    if (folder / CONFIG_FILE).is_file():
        backbone = check_folder(folder)["backbone"]
        if "sha256" in backbone:
            _logger.warning(
                "%s names %s in place of the language model's weights: it loads only where that wheel is; "
                "llm2comp.load(%r).save(...) writes a folder with the weights",
                *(folder, backbone["name"], str(folder)),
            )
    elif not (folder / "modules.json").is_file():
        raise ModelFolderError(
            f"{folder}: no model of llm2comp or sentence-transformers; give a folder that training or export wrote"
        )
    return folder


def _refusal(repository: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else None
    if status == 401:
        return f"{repository}: the Hub does not know you: run `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return f"{repository}: your token may not write there: make one with the role write, or name another owner"
    return f"{repository}: the Hub refused: {one_line(error)}"
