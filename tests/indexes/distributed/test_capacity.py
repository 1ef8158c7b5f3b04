"""What a cluster is asked for: actors leave room for reading, and too much is refused with the numbers."""

import pytest

from llm2comp.errors import ClusterError, SettingsError
from llm2comp_indexes import ClusterOptions
from llm2comp_indexes.distributed.capacity import ActorPlan, NodeFree, plan_actors

GB = 10**9


def node(cpus: float, *, gpus: float = 0, memory: int = 16 * GB, held: float = 0) -> NodeFree:
    return NodeFree("10.0.0.1", cpus - held, gpus, memory, cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "actors", "gpus", "expected"),
    [
        ([node(2)], None, None, ActorPlan(1, 1, 0, GB, 2)),
        ([node(2)], 2, None, ActorPlan(2, 0.8, 0, GB, 1)),
        ([node(2)], 3, None, ActorPlan(3, 0.5, 0, GB, 1)),
        ([node(16)], None, None, ActorPlan(4, 3, 0, GB, 4)),
        ([node(16), node(16)], None, None, ActorPlan(8, 3, 0, GB, 4)),
        ([node(1), node(1), node(1)], 2, None, ActorPlan(2, 0.8, 0, GB, 1)),  # any of them may end
        ([node(8), node(0.5)], 14, None, ActorPlan(14, 0.5, 0, GB, 1)),  # no other way
        ([node(64, gpus=8, memory=500 * GB)], None, None, ActorPlan(8, 1, 1, GB, None)),
        ([node(64, gpus=8, memory=500 * GB)], 16, 0.5, ActorPlan(16, 1, 0.5, GB, None)),
        ([node(64, gpus=8, memory=500 * GB)], 4, 2, ActorPlan(4, 1, 2, GB, None)),
        ([node(8, gpus=8, memory=500 * GB)], None, None, ActorPlan(8, 0.8, 1, GB, None)),
        ([node(16, memory=3 * GB)], None, None, ActorPlan(3, 5, 0, GB, 5)),
    ],
)
def test_plans(nodes: list[NodeFree], actors: int | None, gpus: float | None, expected: ActorPlan) -> None:
    assert plan_actors(nodes, actors, gpus, GB, 0.2) == expected


@pytest.mark.parametrize(
    ("nodes", "actors", "gpus", "spare", "message"),
    [
        ([node(2)], 5, None, 0.2, r"5 actors need at least 0\.5 CPUs, 1 GB of memory each, and reading 0\.2 CPUs"),
        ([node(2)], 4, None, 0.2, r"has 10\.0\.0\.1: 2 of 2 CPUs"),
        ([node(1)], 1, None, 1.0, r"1 actor needs at least .* reading 1 CPUs"),
        ([node(8, held=8)], None, None, 0.2, r"0 of 8 CPUs, .*wait until others free what they hold"),
        ([node(8, memory=GB // 2)], None, None, 0.2, r"500 MB free"),
        ([node(8)], 1, 1, 0.2, r"and 1 GPUs each, .*0 of 0 GPUs"),
        ([node(8, gpus=1)], 2, 1, 0.2, r"2 actors need .*1 of 1 GPUs"),
        ([], 1, None, 0.2, r"the cluster has no node"),
    ],
)
def test_too_much_is_refused(
    nodes: list[NodeFree], actors: int | None, gpus: float | None, spare: float, message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        plan_actors(nodes, actors, gpus, GB, spare)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 0}, "actors is 0"),
        ({"gpus_per_actor": -1}, "gpus_per_actor is -1"),
        ({"gpus_per_actor": 1.5}, "gpus_per_actor is 1.5"),
        ({"block_tokens": 0}, "block_tokens is 0"),
    ],
)
def test_impossible_numbers(options: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ClusterOptions(**options)
