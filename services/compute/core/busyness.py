"""How busy a node is, as it is told: rounded, and told anew only when it changed a lot, for every
telling is a write that all nodes read. Pure."""

from __future__ import annotations

from pvc.coordinator.v1 import cluster_pb2

NodeLoad = cluster_pb2.NodeLoad

LOAD_STEP = 10
MEMORY_STEP_MIB = 64
CHANGE = 0.25
"""By this share of what was told."""
LOAD_CHANGE = 50
"""Half a process more or less says nothing."""
MEMORY_CHANGE_MIB = 256


def rounded(load_average: float, available_memory_mib: int) -> NodeLoad:
    """A measurement. load_average: processes that want a processor."""
    return NodeLoad(
        load_percent=round(load_average * 100 / LOAD_STEP) * LOAD_STEP,
        available_memory_mib=available_memory_mib // MEMORY_STEP_MIB * MEMORY_STEP_MIB,
    )


def to_tell(told: NodeLoad | None, now: NodeLoad) -> NodeLoad:
    """What the node's row is to say: what it says already, unless that misleads by now."""
    if told is None:
        return now
    load = abs(now.load_percent - told.load_percent)
    memory = abs(now.available_memory_mib - told.available_memory_mib)
    same = load < max(LOAD_CHANGE, CHANGE * told.load_percent) and memory < max(
        MEMORY_CHANGE_MIB, CHANGE * told.available_memory_mib
    )
    return told if same else now
