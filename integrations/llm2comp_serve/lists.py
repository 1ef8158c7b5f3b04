"""Lists in the bodies of requests."""

from typing import Annotated, TypeVar

from pydantic import Field

__all__ = ["List"]

_Item = TypeVar("_Item")

List = Annotated[list[_Item], Field(fail_fast=True)]
"""A list that is checked up to its first error: to describe a million errors would hold up every other request."""
