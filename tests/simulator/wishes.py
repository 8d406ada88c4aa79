"""What users ask for: deeds of a script."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulator import users
from tests.simulator.cluster import SimCluster

Do = Callable[[SimCluster, list[str]], None]


def create(cluster: SimCluster, words: list[str]) -> None:
    users.create(cluster, words[0], words[1:])


def delete(cluster: SimCluster, words: list[str]) -> None:
    users.delete(cluster, words[0])


def reboot(cluster: SimCluster, words: list[str]) -> None:
    users.reboot(cluster, words[0])


def drain(cluster: SimCluster, words: list[str]) -> None:
    """drain n1 [shutdown]."""
    users.drain(cluster, words[0], "shutdown" in words[1:])


def ready(cluster: SimCluster, words: list[str]) -> None:
    """ready n1 [leave]."""
    users.ready(cluster, words[0], "leave" in words[1:])


def confirm_dead(cluster: SimCluster, words: list[str]) -> None:
    """Only of a machine that is truly off, and stays so until everybody knows: it is chained."""
    if cluster.nodes[words[0]].machine.on:
        cluster.tell("user", f"sees that {words[0]} is not dead")
    else:
        users.confirm_dead(cluster, words[0])


def setting(cluster: SimCluster, words: list[str]) -> None:
    """set maintenance 1: a field of the cluster's spec."""
    users.setting(cluster, words[0], int(words[1]))


def lead(cluster: SimCluster, words: list[str]) -> None:
    """lead n2: the lead is asked to go there; lead away n1: away from there."""
    users.lead(cluster, words[-1], words[0] == "away")


def move_verb(verb: str) -> Do:
    return lambda cluster, words: users.migrate(cluster, verb, words)


def power_verb(verb: str) -> Do:
    return lambda cluster, words: users.power(cluster, verb, words[0])
