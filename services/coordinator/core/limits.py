"""How the cluster behaves where nobody said otherwise: the defaults of ClusterSpec, in one place.
Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

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
    audit_kept_days: int = 90
    audit_kept_entries: int = 10_000


DEFAULTS = Limits()


def limits_of(spec: cluster_pb2.ClusterSpec) -> Limits:
    """What was asked for, and the default where nothing was."""
    return Limits(**{name: getattr(spec, name) or default for name, default in _NAMED})


def filled(spec: cluster_pb2.ClusterSpec) -> cluster_pb2.ClusterSpec:
    """The spec with its defaults, as it is shown."""
    full = cluster_pb2.ClusterSpec()
    full.CopyFrom(spec)
    for name, default in _NAMED:
        setattr(full, name, getattr(spec, name) or default)
    full.power_on_after_fence = powers_on(spec)
    return full


def powers_on(spec: cluster_pb2.ClusterSpec) -> bool:
    """Fenced nodes are to be switched on again."""
    return not spec.HasField("power_on_after_fence") or spec.power_on_after_fence


_NAMED: tuple[tuple[str, int], ...] = tuple(asdict(DEFAULTS).items())
