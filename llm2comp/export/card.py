"""The model card of a plain export: loading, requirements, and the text of its original's card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

__all__ = ["write_card"]

_COPIED_FACTS = ("license", "license_name", "license_link", "language", "base_model", "datasets")


def write_card(path: Path, model: "LLM2Comp", name: str, dtype: torch.dtype, cosine: float) -> None:
    """Writes the card; licence, languages, data sets and text of the original's card are copied."""
    facts, original = _split(model.card)
    head = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "llm2comp"],
        **{key: facts[key] for key in _COPIED_FACTS if key in facts},
    }
    precision = str(dtype).removeprefix("torch.")
    rounding = (
        ""
        if dtype == torch.float32
        else f" Rounding to {precision} moved them: the smallest cosine to the original's was {cosine:.4f}. "
        'On a CPU, `SentenceTransformer(…, model_kwargs={"dtype": "float32"})` may be faster.'
    )
    instruction = model.prompts.get("query") or ""
    prompts = (
        f"`encode_query` puts the instruction {instruction!r} before each query; documents take none."
        if instruction
        else "Texts are encoded without instructions."
    )
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"# {name}",
        "",
        "A text encoder in the format of [sentence-transformers](https://sbert.net), exported from a model of "
        "llm2comp. No other package is needed,",
        "and no `trust_remote_code`:",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{name}")',
        'documents = model.encode_document(["Remove a file or directory.", "Return the square root of x."])',
        'query = model.encode_query("delete a folder")',
        "print(model.similarity(query, documents))",
        "```",
        "",
        f"- Needs sentence-transformers 6.0.1 and transformers 5.17 or newer. {_CAUSAL}",
        f"- {model.get_embedding_dimension()} dimensions{', unit length' if model.normalize else ''}; up to "
        f"{model.max_seq_length} tokens, of which "
        f"{model.memory_tokens} are memory tokens that the tokenizer puts behind every text; longer texts keep their "
        "beginning.",
        f"- {prompts}",
        *([_ELSEWHERE.format(name=name, instruction=instruction)] if instruction else []),
        f"- Weights in {precision}. The vectors were compared with the original's when this was exported.{rounding}",
        "- Strings such as `</s>` inside a text are text, by the tokenizer's option `split_special_tokens`; a program "
        "that reads `tokenizer.json`",
        "  without transformers takes them for special tokens.",
        f"- Exported from the model with fingerprint `{model.fingerprint}`.",
        "- mteb files results under a name and a revision, which a folder does not have, and takes the results of two "
        "such models for those of one. Before `mteb.evaluate`:",
        f'  `model.model_card_data.model_name, model.model_card_data.base_model_revision = "local/{name}", '
        f'"{model.fingerprint}{"" if dtype == torch.float32 else f"-{precision}"}"`.',
    ]
    if original:
        lines += ["", "What follows is the card of that model.", "", "---", "", original]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


_ELSEWHERE = (
    '- Elsewhere the instruction has to be asked for: `HuggingFaceEmbedding("{name}", '
    "query_instruction={instruction!r})` in LlamaIndex,\n"
    '  `HuggingFaceEmbeddings(model_name="{name}", query_encode_kwargs={{"prompt_name": "query"}})` in LangChain.'
)
_CAUSAL = "Older ones may overlook that texts are read in both directions (`is_causal`), and give other vectors."


def _split(card: str) -> tuple[dict[str, Any], str]:
    """The facts in a card's YAML head, and its text."""
    if not card.startswith("---\n"):
        return {}, card.strip()
    head, _, text = card.removeprefix("---\n").partition("\n---\n")
    try:
        facts = yaml.safe_load(head)
    except yaml.YAMLError:
        facts = None
    return facts if isinstance(facts, dict) else {}, text.strip()
