"""What stores refuse in the same words."""

from llm2comp.errors import SettingsError, StoreError
from llm2comp_indexes.filters.conditions import FieldTest
from llm2comp_indexes.stores.header import StoreHeader
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["check_dimension", "refused_filter", "require_header"]


def check_dimension(dimension: int, most: int, store: str) -> None:
    """Raises SettingsError if the store takes no vectors of this dimension."""
    if dimension > most:
        raise SettingsError(
            f"vectors of dimension {dimension:,}: {store} takes at most {most:,} numbers; keep the first of each "
            f"vector with --truncate-dim {most}"
        )


def refused_filter(test: FieldTest, why: str, store: str) -> SettingsError:
    """Error for a condition that the store cannot filter by."""
    return SettingsError(
        f"where: {store} cannot filter so by the field {test.field!r:.80}: {why}; search the folder of the index "
        "instead"
    )


def require_header(header: StoreHeader | None, url: StoreUrl) -> StoreHeader:
    """The header of a table that has to be there.

    Raises:
        StoreError: It is not.
    """
    if header is None:
        raise StoreError(f"{url}: there is no such table; push an index to it: llm2comp index push DIR --to …")
    return header
