"""Opening a store by its address."""

from llm2comp_indexes.stores.contract import Store
from llm2comp_indexes.stores.lance import LanceStore
from llm2comp_indexes.stores.milvus import MilvusStore
from llm2comp_indexes.stores.postgres import PostgresStore
from llm2comp_indexes.stores.qdrant import QdrantStore
from llm2comp_indexes.stores.url import StoreUrl, parse_store_url

__all__ = ["open_store"]


def open_store(url: str | StoreUrl) -> Store:
    """The store at the address. It connects at the first use.

    Raises:
        SettingsError: The address is of no store, or the store's client is not installed.
    """
    parsed = parse_store_url(url) if isinstance(url, str) else url
    match parsed.kind:
        case "postgresql":
            return PostgresStore(parsed)
        case "milvus":
            return MilvusStore(parsed)
        case "lancedb":
            return LanceStore(parsed)
        case _:
            return QdrantStore(parsed)
