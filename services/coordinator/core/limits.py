"""How the cluster behaves where nobody said otherwise: the defaults of ClusterSpec, in one place.
Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pvc.coordinator.v1 import cluster_pb2


@dataclass(frozen=True, slots=True)
class Limits:
    """ClusterSpec with its defaults filled in; see there."""

    fence_max_percent: int = 34
    fence_delay_ms: int = 500
    restart_grace_s: int = 60
    migrations_per_node: int = 2
    migrations_per_cluster: int = 8
    balance_threshold_percent: int = 20


DEFAULTS = Limits()


def limits_of(spec: cluster_pb2.ClusterSpec) -> Limits:
    """What was asked for, and the default where nothing was."""
    return Limits(
        fence_max_percent=spec.fence_max_percent or DEFAULTS.fence_max_percent,
        fence_delay_ms=spec.fence_delay_ms or DEFAULTS.fence_delay_ms,
        restart_grace_s=spec.restart_grace_s or DEFAULTS.restart_grace_s,
        migrations_per_node=spec.migrations_per_node or DEFAULTS.migrations_per_node,
        migrations_per_cluster=spec.migrations_per_cluster or DEFAULTS.migrations_per_cluster,
        balance_threshold_percent=(
            spec.balance_threshold_percent or DEFAULTS.balance_threshold_percent
        ),
    )
