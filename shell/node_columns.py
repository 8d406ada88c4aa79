"""What is worth showing of nodes: of their rows, and of what other rows tell of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shell.columns import COMMON, enum_word, state_style, when
from shell.measures import mebibytes, span
from shell.render import RECORD, WIDE, Column, View, short


@dataclass(slots=True)
class Burden:
    """What a node's VMs take."""

    vms: int = 0
    memory_mib: int = 0
    """Of those that are to run."""


@dataclass(frozen=True, slots=True)
class Around:
    """What other rows tell."""

    leader: str = ""
    burdens: Mapping[str, Burden] = field(default_factory=dict)


def around(leader: str, vms: Iterable[Any]) -> Around:
    """leader: nodes/{node}."""
    burdens: dict[str, Burden] = {}
    for vm in vms:
        burden = burdens.setdefault(vm.decision.node, Burden())
        burden.vms += 1
        if enum_word(vm.decision, "power") in ("running", "paused"):
            memory = vm.spec.memory
            burden.memory_mib += max(memory.memory_mib, memory.max_memory_mib)
    return Around(leader, burdens)


def columns(there: Around) -> Sequence[Column]:
    """The columns of nodes."""

    def burden(row: Any) -> Burden:
        return there.burdens.get(row.name, Burden())

    return (
        Column("NAME", lambda r, v: short(r), path="name"),
        Column(
            "STATE",
            lambda r, v: enum_word(r.decision, "state") or "new",
            style=state_style,
            path="decision.state",
        ),
        Column("ROLE", lambda r, v: role(r, there.leader)),
        Column("VERSION", lambda r, v: r.status.version, path="status.version"),
        Column("VMS", lambda r, v: str(burden(r).vms), right=True),
        Column("MEMORY", lambda r, v: memory(r, burden(r)), right=True),
        Column("CPUS", lambda r, v: str(r.status.cpus or ""), right=True, path="status.cpus"),
        Column("LOAD", lambda r, v: load(r), right=True, path="status.load.load_percent"),
        Column("TAGS", lambda r, v: " ".join(r.spec.tags), elastic=True, path="spec.tags"),
        Column("ADDRESS", lambda r, v: r.spec.address, WIDE, path="spec.address"),
        *SOFTWARE,
        Column("WHY", lambda r, v: r.decision.why, WIDE, elastic=True, path="decision.why"),
        Column(
            "SINCE", lambda r, v: when(r.decision, "state_time"), RECORD, path="decision.state_time"
        ),
        *FENCING,
        *DETAILS,
    )


def role(node: Any, leader: str) -> str:
    """ "leader", "coordinator" or nothing."""
    if node.name == leader:
        return "leader"
    return "coordinator" if node.spec.coordinator else ""


def memory(node: Any, burden: Burden) -> str:
    """What is promised of what there is for VMs."""
    there = node.status.memory_for_vms_mib
    return f"{mebibytes(burden.memory_mib) or 0}/{mebibytes(there)}" if there else ""


def load(node: Any) -> str:
    """Processes that want a processor; as long as the node works."""
    return f"{node.status.load.load_percent / 100:.2f}" if node.status.HasField("load") else ""


def proof(node: Any) -> str:
    """The proof that it was fenced by, now or the last time."""
    told = node.decision.proof
    if not told.means:
        return ""
    means = enum_word(told, "means")
    return "\n".join(
        filter(None, [f"{means}: {told.text}", f"{when(told, 'time')} by {told.given_by}"])
    )


def attempts(node: Any) -> str:
    """How the proofs are coming along."""
    lines = []
    for one in node.decision.attempts:
        tries = "impossible" if one.impossible else f"tried {one.tries} times"
        lines.append(f"{enum_word(one, 'means')}  {tries}  {one.why}".rstrip())
    return "\n".join(lines)


def power_on(node: Any) -> str:
    """How it is switched on again while it is fenced, or why not."""
    record = node.decision.power_on
    if not record.why:
        return ""
    tries = f"tried {record.tries} times" if record.tries else "not tried"
    return f"{tries}{', no more' if record.ended else ''}  {record.why}"


def controller(node: Any, view: View) -> str:
    """Its controller, and whether it can be believed."""
    if not node.spec.HasField("power_control"):
        return "none: this node cannot be switched off from outside"
    control, check = node.spec.power_control, node.decision.controller
    where = f"{enum_word(control, 'protocol')} {control.address}"
    if not node.decision.HasField("controller"):
        return f"{where}\nnot asked yet"
    told = "trusted" if check.trusted else f"not trusted: {check.why}"
    age = span(max(view.now - check.time.seconds, 0)) if view.now else when(check, "time")
    return f"{where}\n{told} ({age} ago)"


def watchdog(node: Any) -> str:
    """Its watchdog, and whether it guards."""
    if not node.status.HasField("watchdog"):
        return "none"
    dog = node.status.watchdog
    armed = f"armed, resets after {dog.timeout.seconds} s" if dog.armed else "not armed"
    return f"{dog.device}  {armed}".strip()


def services(node: Any) -> str:
    """What runs on it and where it listens, a line each."""
    return "\n".join(f"{one.service}  {one.address}" for one in node.status.services)


SOFTWARE = (
    Column("ACCELERATOR", lambda r, v: r.status.accelerator, WIDE, path="status.accelerator"),
    Column("QEMU", lambda r, v: r.status.emulator_version, WIDE, path="status.emulator_version"),
    Column("LIBVIRT", lambda r, v: r.status.libvirt_version, WIDE, path="status.libvirt_version"),
    Column("KERNEL", lambda r, v: r.status.kernel, WIDE, elastic=True, path="status.kernel"),
)
FENCING = (
    Column("FAULTS", lambda r, v: "\n".join(r.status.faults), RECORD, path="status.faults"),
    Column("PROOF", lambda r, v: proof(r), RECORD),
    Column("ATTEMPTS", lambda r, v: attempts(r), RECORD),
    Column("POWER ON", lambda r, v: power_on(r), RECORD),
    Column("CONTROLLER", controller, RECORD),
    Column("WATCHDOG", lambda r, v: watchdog(r), RECORD),
    Column("FENCES", lambda r, v: str(r.decision.fences or ""), RECORD, path="decision.fences"),
)
DETAILS = (
    Column("DESCRIPTION", lambda r, v: r.spec.description, RECORD, path="spec.description"),
    Column("MAX VMS", lambda r, v: str(r.spec.max_vms or ""), RECORD, path="spec.max_vms"),
    Column(
        "MEMORY OF ALL",
        lambda r, v: mebibytes(r.status.memory_mib),
        RECORD,
        path="status.memory_mib",
    ),
    Column(
        "FREE MEMORY",
        lambda r, v: mebibytes(r.status.load.available_memory_mib),
        RECORD,
        path="status.load.available_memory_mib",
    ),
    Column(
        "ACCELERATOR WHY",
        lambda r, v: r.status.accelerator_why,
        RECORD,
        path="status.accelerator_why",
    ),
    Column("SERVICES", lambda r, v: services(r), RECORD),
    Column(
        "STORAGE",
        lambda r, v: " ".join(r.status.storage_clients),
        RECORD,
        path="status.storage_clients",
    ),
    Column(
        "CPU MODELS", lambda r, v: " ".join(r.status.cpu_models), RECORD, path="status.cpu_models"
    ),
    *COMMON,
)
