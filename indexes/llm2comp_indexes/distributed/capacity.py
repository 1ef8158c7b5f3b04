"""How many actors a cluster can hold beside the tasks that read for them; too many would wait for ever."""

from collections.abc import Sequence
from typing import NamedTuple

from llm2comp.errors import ClusterError, SettingsError
from llm2comp.units import format_bytes

__all__ = ["ActorPlan", "NodeFree", "check_wishes", "plan_actors"]

_CPUS_PER_ACTOR = 4
"""Number of CPUs for which there is an actor by default, where there are no GPUs."""
_FRACTIONS = (0.8, 0.5)
"""Shares of a CPU that actors hold where they cannot have a whole one each."""


class NodeFree(NamedTuple):
    """What is free on a node, and what it has in all.

    Attributes:
        name: Its address.
        cpus: Number of CPUs that are free.
        gpus: Number of GPUs that are free.
        memory: Bytes of memory that are free.
        all_cpus: Number of its CPUs.
        all_gpus: Number of its GPUs.
    """

    name: str
    cpus: float
    gpus: float
    memory: int
    all_cpus: float
    all_gpus: float


class ActorPlan(NamedTuple):
    """Actors, and what each of them holds.

    Attributes:
        actors: Number of actors.
        cpus: CPUs that Ray keeps for each.
        gpus: GPUs of each.
        memory: Bytes of memory that Ray keeps for each.
        threads: Number of threads that its model computes with; None: as many as PyTorch takes.
    """

    actors: int
    cpus: float
    gpus: float
    memory: int
    threads: int | None


def check_wishes(actors: int | None, gpus_per_actor: float | None) -> None:
    """Raises SettingsError unless the numbers, where they are given, are possible ones."""
    if actors is not None and actors < 1:
        raise SettingsError(f"actors is {actors}, expected at least 1")
    if gpus_per_actor is not None and (gpus_per_actor < 0 or gpus_per_actor > 1 and gpus_per_actor % 1):
        raise SettingsError(f"gpus_per_actor is {gpus_per_actor}, expected 0, a share of a GPU, or a whole number")


def plan_actors(
    nodes: Sequence[NodeFree], actors: int | None, gpus_per_actor: float | None, memory: int, spare_cpus: float
) -> ActorPlan:
    """The actors that the cluster gets.

    Args:
        nodes: What is free on each node.
        actors: Number of actors; None: one for each share of the free GPUs, or for four free CPUs of a node.
        gpus_per_actor: GPUs of each; None: 1 if the cluster has any.
        memory: Bytes of memory that an actor needs.
        spare_cpus: CPUs that must stay free for reading.

    Raises:
        ClusterError: The cluster cannot give as much now.
    """
    gpus = float(any(node.all_gpus for node in nodes)) if gpus_per_actor is None else gpus_per_actor
    number = actors or max(1, sum(_default_slots(node, gpus, memory) for node in nodes))
    largest = int(max((node.cpus for node in nodes), default=0))
    choices = [1] if gpus else range(largest, 0, -1)
    for fits in (_fits_whatever_ends, _fits):
        for cpus in (*choices, *_FRACTIONS):
            if fits(nodes, number, ActorPlan(1, cpus, gpus, memory, None), spare_cpus):
                threads = None if gpus else max(1, int(sum(node.cpus for node in nodes) // number))
                return ActorPlan(number, cpus, gpus, memory, threads)
    raise ClusterError(_describe_lack(nodes, number, gpus, memory, spare_cpus))


def _default_slots(node: NodeFree, gpus: float, memory: int) -> int:
    slots = node.gpus // gpus if gpus else max(1, node.cpus // _CPUS_PER_ACTOR) if node.cpus >= _FRACTIONS[-1] else 0
    return int(min(slots, node.memory // memory))


def _fits_whatever_ends(nodes: Sequence[NodeFree], number: int, each: ActorPlan, spare_cpus: float) -> bool:
    """Whether all actors find a place, and every node that holds some leaves enough for reading.

    So reading goes on if nodes end, and if one that has ended is still listed.
    """
    slots = [_slots(node, each) for node in nodes]
    return sum(slots) >= number and all(
        node.cpus - each.cpus * min(held, number) >= spare_cpus - 1e-9
        for node, held in zip(nodes, slots, strict=True)
        if held
    )


def _fits(nodes: Sequence[NodeFree], number: int, each: ActorPlan, spare_cpus: float) -> bool:
    """Whether all actors find a place, and reading too."""
    slots = [_slots(node, each) for node in nodes]
    if sum(slots) < number:
        return False
    unused = sum(slots) - number
    return any(
        node.cpus - each.cpus * max(0, held - unused) >= spare_cpus - 1e-9
        for node, held in zip(nodes, slots, strict=True)
    )


def _slots(node: NodeFree, each: ActorPlan) -> int:
    """Number of such actors that the node holds."""
    by_gpus = node.gpus // each.gpus if each.gpus else float("inf")
    return int(min((node.cpus + 1e-9) // each.cpus, node.memory // each.memory, by_gpus))


def _describe_lack(nodes: Sequence[NodeFree], number: int, gpus: float, memory: int, spare_cpus: float) -> str:
    each = f"{_FRACTIONS[-1]:g} CPUs, {format_bytes(memory)} of memory" + (f" and {gpus:g} GPUs" if gpus else "")
    held = "; ".join(
        f"{node.name}: {node.cpus:g} of {node.all_cpus:g} CPUs, {node.gpus:g} of {node.all_gpus:g} GPUs and "
        f"{format_bytes(node.memory)} free"
        for node in nodes[:8]
    )
    more = f"; and {len(nodes) - 8} more" if len(nodes) > 8 else ""
    plural = "actors need" if number > 1 else "actor needs"
    return (
        f"{number} {plural} at least {each} each, and reading {spare_cpus:g} CPUs; the cluster has "
        f"{held or 'no node'}{more}: ask for fewer actors (--actors), wait until others free what they hold, or take a "
        "larger cluster"
    )
