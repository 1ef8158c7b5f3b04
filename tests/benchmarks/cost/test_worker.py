"""Systems that take turns in processes of their own."""

import sys
from textwrap import dedent

import pytest

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.worker import Worker

SERVER = dedent(
    """
    import os, sys
    from llm2comp_benchmarks.cost.worker import serve

    def open_system():
        print("a library says hello")
        def double(number):
            print("and goes on talking")
            return {"result": 2 * number}
        def fail():
            raise ValueError("too warm")
        return {"threads": os.environ["OMP_NUM_THREADS"]}, {"double": double, "fail": fail}

    serve(open_system)
    """
)


def test_a_worker_answers_whatever_libraries_print_and_tells_why_it_failed() -> None:
    with Worker("kettle", [sys.executable, "-c", SERVER], threads=3) as worker:
        assert worker.opened == {"threads": "3"}
        assert worker.ask("double", number=4) == {"result": 8}
        assert worker.ask("double", number=5) == {"result": 10}
        for _ in range(2):  # the second time it is asked after its end
            with pytest.raises(LLM2CompError, match="^kettle: failed: ValueError: too warm$"):
                worker.ask("fail")


def test_a_worker_that_cannot_start_is_one_error() -> None:
    with pytest.raises(
        LLM2CompError, match="^kettle: failed: ModuleNotFoundError: No module named 'nothing_of_the_kind'$"
    ):
        Worker("kettle", [sys.executable, "-c", "import nothing_of_the_kind"], threads=1)


def test_every_round_has_all_and_begins_with_another() -> None:
    assert list(in_turn("abc", 4)) == [
        (0, "a"),
        (0, "b"),
        (0, "c"),
        (1, "b"),
        (1, "c"),
        (1, "a"),
        (2, "c"),
        (2, "a"),
        (2, "b"),
        (3, "a"),
        (3, "b"),
        (3, "c"),
    ]
    assert list(in_turn([], 2)) == []


def test_ratios_are_of_the_same_round() -> None:
    assert RoundStats.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert RoundStats.ratio([10.0, 30.0, 8.0], [5.0, 10.0, 1.0]) == (3.0, 2.0, 8.0)
    assert RoundStats(2.0, 1.0, 3.0).scaled(0.5) == (1.0, 0.5, 1.5)
