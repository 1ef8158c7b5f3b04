"""A model described and wrapped for mteb: metadata, prompts, and mteb's interface."""

import hashlib
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from llm2comp.bundled_models import BUNDLED_OWNER, bundled_name, full_name, resolve_name
from llm2comp.errors import SettingsError
from llm2comp.optional import optional_import

__all__ = ["Identity", "describe_for_mteb", "identify", "import_mteb", "load_for_mteb", "wrap_for_mteb"]


class Identity(NamedTuple):
    """What mteb files results under.

    Attributes:
        name: owner/name on the Hub; `local/FOLDER` for a folder, `local/POOLING-FOLDER` and the like for a baseline.
        revision: Commit on the Hub; for a folder a checksum of what determines its vectors.
    """

    name: str
    revision: str


def import_mteb() -> ModuleType:
    """The `mteb` module.

    Raises:
        LLM2CompError: It is not installed.
    """
    return optional_import("mteb", extra="eval", needed_by="a task of mteb")


def identify(model: Any, source: str | None, name: str | None = None) -> Identity:
    """Name and revision of a model.

    Args:
        model: The model, loaded.
        source: Bundled model, folder or Hub id it was loaded from; None: the default bundled model.
        name: The owner/name to file results under, where the source is not the model's Hub id.

    Raises:
        SettingsError: The name is not of the form owner/name.
    """
    if name is not None and (name.count("/") != 1 or not all(name.split("/"))):
        raise SettingsError(f"the model's name in the results is {name!r}; give owner/name, as on the Hub")
    if (label := getattr(model, "label", None)) is not None:
        return Identity(name or f"local/{label}", model.revision or _digest(Path(model.source.name)))
    if bundled_name(source) is None and not Path(source or "").exists():
        from llm2comp.backbone.loading import find_source

        assert source is not None
        return Identity(name or source, find_source(source).revision or "unknown")
    return Identity(
        name or full_name(source), getattr(model, "fingerprint", None) or _digest(Path(resolve_name(source)))
    )


def _digest(folder: Path) -> str:
    """SHA-256 of the names and contents of a folder's files, without README.md and hidden files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if (
            path.is_file()
            and path.name != "README.md"
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


def describe_for_mteb(model: Any, identity: Identity, prompts: dict[str, str]) -> Any:
    """The ModelMeta of one of our models, of sentence-transformers, or of a baseline; unknown fields are None."""
    from mteb.models import ModelMeta
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from mteb.types import Licenses

    facts = _card_facts(getattr(model, "card", ""))
    parameters = list(model.parameters()) if hasattr(model, "parameters") else []  # random vectors have none
    known_licenses = [value for part in typing.get_args(Licenses) for value in (typing.get_args(part) or (part,))]
    ours = hasattr(model, "memory_tokens")
    reference = model.encoder.backbone.reference if ours else None
    is_bundled = _bundled_of(identity.name) is not None
    on_hub = not identity.name.startswith("local/") and not is_bundled
    return ModelMeta(
        loader=load_for_mteb if ours else SentenceTransformerEncoderWrapper,
        name=identity.name,
        revision=identity.revision,
        release_date=None,
        languages=None,
        n_parameters=sum(parameter.numel() for parameter in parameters),
        n_embedding_parameters=model.encoder.backbone.vocabulary_size * model.encoder.backbone.hidden_size
        if ours
        else None,
        memory_usage_mb=round(sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 2**20, 1),
        max_tokens=getattr(model, "max_seq_length", None),
        embed_dim=model.get_embedding_dimension(),
        license=facts["license"] if facts.get("license") in known_licenses else None,
        open_weights=True if on_hub or is_bundled else None,
        public_training_code=None,
        public_training_data=None,
        framework=["Sentence Transformers", "PyTorch"],
        reference=f"https://huggingface.co/{identity.name}" if on_hub else None,
        similarity_fn_name=model.similarity_fn_name,
        use_instructions=any(prompts.values()),
        training_datasets=None,
        adapted_from=reference.name if reference else None,
    )


def _bundled_of(name: str) -> str | None:
    """The bundled model that mteb knows by this name, or None."""
    owner, _, model = name.partition("/")
    return bundled_name(model) if owner == BUNDLED_OWNER else None


def _card_facts(card: str) -> dict[str, Any]:
    """The YAML header of a model card; empty without one."""
    import yaml

    try:
        facts = yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0]) if card.startswith("---\n") else None
    except yaml.YAMLError:
        facts = None
    return facts if isinstance(facts, dict) else {}


def wrap_for_mteb(model: Any, meta: Any, prompts: dict[str, str]) -> Any:
    """The model behind mteb's interface; every text is encoded with the prompt of its task."""
    from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
    from mteb.types import PromptType

    encoders = {PromptType.query: model.encode_query, PromptType.document: model.encode_document, None: model.encode}

    class Wrapped(AbsEncoder):
        def encode(
            self,
            inputs: Any,
            *,
            task_metadata: Any,
            prompt_type: Any = None,
            hf_split: str = "",
            hf_subset: str = "",
            **options: Any,
        ) -> Any:
            texts = [text for batch in inputs for text in batch["text"]]
            prompt = prompts.get(get_prompt_name(prompts, task_metadata, prompt_type) or "")
            return np.asarray(encoders[prompt_type](texts, prompt=prompt, **options))

    wrapped = Wrapped()
    wrapped.model, wrapped.model_prompts, wrapped.mteb_model_meta = model, prompts, meta
    return wrapped


def load_for_mteb(name: str, revision: str | None = None, device: str | None = None, **_: Any) -> Any:
    """An LLM2Comp model for mteb, as the `loader` of a ModelMeta: the bundled one, or one on the Hub at a revision.

    Raises:
        ModelFolderError: The model cannot be downloaded, or is not one of this package.
    """
    import llm2comp

    if (bundled := _bundled_of(name)) is not None:
        model = llm2comp.load(bundled, device=device)
        revision = model.fingerprint
    elif revision is None:
        model = llm2comp.load(name, device=device)
        revision = identify(model, name).revision
    else:
        from huggingface_hub import snapshot_download

        model = llm2comp.load(snapshot_download(name, revision=revision), device=device)
    prompts = {key: prompt or "" for key, prompt in model.prompts.items()}
    return wrap_for_mteb(model, describe_for_mteb(model, Identity(name, revision), prompts), prompts)
