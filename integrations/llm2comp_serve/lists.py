"""Lists and filters in the bodies of requests."""

from typing import Annotated, TypeVar

from pydantic import Field

__all__ = ["MOST_FILTER", "List"]

_Item = TypeVar("_Item")

List = Annotated[list[_Item], Field(fail_fast=True)]
"""A list that is checked up to its first error: to describe a million errors would hold up every other request."""

MOST_FILTER = 1 << 16
"""Characters of a filter; longer ones take seconds to parse."""
