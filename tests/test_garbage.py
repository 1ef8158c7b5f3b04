"""Imports without garbage collection: it is on again afterwards, and the objects are old, not frozen."""

import gc
from collections.abc import Iterator

import pytest

from llm2comp.garbage import uncollected
from tests.child_process import run_python


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Garbage collection is on after each test, whatever it did."""
    yield
    gc.unfreeze()
    gc.enable()


def test_collection_is_off_within_the_block_only() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()  # the outer block goes on
    assert gc.isenabled()


def test_collection_is_on_again_after_an_error() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_a_program_without_collection_stays_without() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_what_was_made_in_the_block_is_old_and_can_be_collected() -> None:
    with uncollected():
        made = [object()]
    assert any(thing is made for thing in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0


def test_what_the_program_froze_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with uncollected():
        pass
    assert frozen - 100 < gc.get_freeze_count() <= frozen


def test_importing_the_model_walks_no_objects() -> None:
    code = """
import gc
walks = []
gc.callbacks.append(lambda phase, info: walks.append(info["generation"]))
import llm2comp
llm2comp.load
print(2 in walks, gc.isenabled())
"""
    assert run_python(code) == "False True\n"
