"""LlamaIndex's nodes as documents of an index, and back."""

import json
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from llm2comp.corpus.documents import Document
from llm2comp_adapters import hit_metadata, make_document
from llm2comp_indexes import Hit

__all__ = ["NODE", "SOURCE", "to_document", "to_node"]

SOURCE = "llm2comp_source"
"""Field of the id of the document that a node comes from (its `ref_doc_id`)."""
NODE = "llm2comp_node"
"""Field of what else a node has: its class, relationships, keys left out, templates; as JSON."""
_ELSEWHERE = {"text", "text_resource", "metadata", "embedding"}


def to_document(node: BaseNode) -> Document:
    """The document of a node: its id, text and metadata, and the rest of it in two more fields.

    Raises:
        SettingsError: The metadata holds something that JSON cannot hold.
    """
    content = node.model_dump(mode="json", exclude=_ELSEWHERE)
    rest = json.dumps({"type": node.class_name(), "node": content}, ensure_ascii=False)
    fields: dict[str, Any] = {} if node.ref_doc_id is None else {SOURCE: node.ref_doc_id}
    fields[NODE] = rest  # both first: filters know the first 1,000 fields
    fields |= {name: value for name, value in node.metadata.items() if name not in (SOURCE, NODE)}
    return make_document(node.node_id, node.get_content(metadata_mode=MetadataMode.NONE), fields)


def to_node(hit: Hit) -> BaseNode:
    """The node of a hit; a document that was no node becomes one with its title, if any, in the metadata."""
    metadata = hit_metadata(hit)
    rest = metadata.pop(NODE, None)
    metadata.pop(SOURCE, None)
    if not isinstance(rest, str):
        return TextNode(id_=hit.id, text=hit.text, metadata=metadata)
    known = json.loads(rest)
    content = json.dumps({**known["node"], "metadata": metadata})
    return metadata_dict_to_node({"_node_content": content, "_node_type": known["type"]}, text=hit.text)
