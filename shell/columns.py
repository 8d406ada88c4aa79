"""What is worth showing of each kind of thing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shell.measures import mebibytes, size, span
from shell.render import RECORD, WIDE, Column, View, short

GOOD = {"running", "ready", "online", "ok", "succeeded", "info"}
BUSY = {
    "starting", "stopping", "paused", "pending", "creating", "deleting", "warning", "cancelled",
    "joining", "draining", "drained", "maintenance", "leaving",
}  # fmt: skip
BAD = {"crashed", "failed", "unknown", "error", "fencing", "fenced"}


def state_style(word: str) -> str:
    """The style of a state."""
    first = word.split(" ")[0]
    for style, words in (("good", GOOD), ("busy", BUSY), ("bad", BAD), ("dim", {"stopped"})):
        if first in words:
            return style
    return ""


def enum_word(message: Any, field: str) -> str:
    """An enum field's value as a word: VM_STATE_RUNNING → "running"; "" when unset."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    value = enum.values_by_number.get(number)
    if not number or value is None:
        return str(number or "")
    zero = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(value.name.removeprefix(zero).lower().replace("_", " "))


def last(name: str) -> str:
    """The last id of a name."""
    return name.rpartition("/")[2]


def ids(name: str) -> str:
    """The ids of a name, with slashes."""
    return "/".join(name.split("/")[1::2])


def ago(message: Any, field: str, view: View) -> str:
    """How long ago a time was; "" when unset."""
    if not message.HasField(field):
        return ""
    stamp = getattr(message, field)
    return span(view.now - stamp.seconds) if view.now else stamp.ToJsonString()


def when(message: Any, field: str) -> str:
    """A time in UTC to the second; "" when unset."""
    if not message.HasField(field):
        return ""
    moment = getattr(message, field).ToDatetime()
    return str(moment.strftime("%Y-%m-%d %H:%M:%S UTC"))


def labels(row: Any) -> str:
    """The user's labels."""
    return " ".join(f"{key}={value}" for key, value in sorted(row.meta.labels.items()))


NAME = Column("NAME", lambda r, v: short(r), path="name", also=("id",))
AGE = Column(
    "AGE",
    lambda r, v: ago(r.meta, "create_time", v),
    right=True,
    path="meta.create_time",
    is_age=True,
)
DESCRIPTION = Column(
    "DESCRIPTION", lambda r, v: r.spec.description, WIDE, elastic=True, path="spec.description"
)
STATE = Column(
    "STATE",
    lambda r, v: enum_word(r.status, "state") or "new",
    style=state_style,
    path="status.state",
)
WHY = Column("WHY", lambda r, v: r.status.why, WIDE, elastic=True, path="status.why")
COMMON = (
    Column("LABELS", lambda r, v: labels(r), RECORD, path="meta.labels"),
    Column("CREATED", lambda r, v: when(r.meta, "create_time"), RECORD, path="meta.create_time"),
    Column("UID", lambda r, v: r.meta.uid, RECORD, path="meta.uid"),
    Column("ETAG", lambda r, v: r.meta.etag, RECORD, path="meta.etag"),
)


def addresses(vm: Any) -> str:
    """What the guest says its addresses are."""
    return " ".join(one.partition("/")[0] for one in vm.status.guest.addresses)


def disk_line(disk: Any) -> str:
    """A drive of a spec in one line."""
    words = [disk.id, ids(disk.volume) or "(empty)", enum_word(disk, "device")]
    words += [enum_word(disk, "bus"), enum_word(disk, "cache")]
    if disk.boot_order:
        words.append(f"boot {disk.boot_order}")
    if disk.read_only:
        words.append("read-only")
    return "  ".join(filter(None, words))


def nic_line(nic: Any) -> str:
    """An interface of a spec in one line."""
    words = [nic.id, last(nic.network), nic.mac, enum_word(nic, "model")]
    return "  ".join([*filter(None, words), *(["link down"] if nic.link_down else [])])


def up_for(vm: Any, view: View) -> str:
    """How long a VM has been running."""
    running = enum_word(vm.status, "state") in ("running", "paused")
    return ago(vm.status, "start_time", view) if running else ""


def vm_memory(vm: Any) -> str:
    """Memory that a VM has, or will have."""
    return mebibytes(vm.status.memory_mib or vm.spec.memory.memory_mib)


def vm_node(vm: Any) -> str:
    """Where it is; where it goes, while it moves."""
    there = last(vm.decision.node)
    return f"{there} → {last(vm.decision.migration.target)}" if _moves(vm) else there


def _moves(vm: Any) -> bool:
    return bool(vm.decision.HasField("migration"))


def vm_move(vm: Any) -> str:
    """How its move stands."""
    if not _moves(vm):
        return ""
    seen, to = vm.status.migration, last(vm.decision.migration.target)
    if seen.id != vm.decision.migration.id or not seen.total_bytes:
        return f"to {to}: {enum_word(seen, 'phase') or 'begins'}"
    left = f"{size(seen.remaining_bytes)} of {size(seen.total_bytes)} to go"
    pace = f"{size(seen.copied_bytes_per_s)}/s, the guest writes {size(seen.dirty_bytes_per_s)}/s"
    eta = f", about {seen.remaining_s} s left" if seen.remaining_s else ""
    return f"to {to}: {left}, {pace}{eta}"


def vm_ha(vm: Any) -> str:
    """What becomes of it when its node fails."""
    ha = vm.spec.ha
    after = f", after {' '.join(map(last, ha.start_after))}" if ha.start_after else ""
    return f"{enum_word(ha, 'policy')}, priority {ha.priority}{after}" if ha.priority else ""


def vm_rules(vm: Any) -> str:
    """Where it may and should be, a line each."""
    placement, lines = vm.spec.placement, []
    if placement.nodes:
        lines.append(f"only {' '.join(map(last, placement.nodes))}")
    for rule in placement.node_rules:
        lines.append(f"{_must(rule)} {'avoid nodes' if rule.avoid else 'be on nodes'} {rule.tag}")
    for rule in placement.vm_rules:
        lines.append(f"{_must(rule)} be {'apart from' if rule.apart else 'with'} VMs {rule.tag}")
    return "\n".join(lines)


def _must(rule: Any) -> str:
    return "must" if rule.required else "should"


VM = (
    NAME,
    STATE,
    Column("NODE", lambda r, v: vm_node(r), path="decision.node", also=("host",)),
    Column(
        "CPUS",
        lambda r, v: str(r.status.vcpus or r.spec.cpu.vcpus or ""),
        right=True,
        path="spec.cpu.vcpus",
        also=("vcpus",),
    ),
    Column(
        "MEMORY",
        lambda r, v: vm_memory(r),
        right=True,
        path="spec.memory.memory_mib",
        also=("ram",),
    ),
    Column(
        "ADDRESS",
        lambda r, v: addresses(r),
        elastic=True,
        path="status.guest.addresses",
        also=("addresses", "ip"),
    ),
    Column("TAGS", lambda r, v: " ".join(r.spec.tags), elastic=True, path="spec.tags"),
    Column("UPTIME", up_for, WIDE, right=True, path="status.start_time", is_age=True),
    AGE,
    Column("AGENT", lambda r, v: "yes" if r.status.HasField("guest") else "", WIDE),
    Column("OS", lambda r, v: r.status.guest.os, WIDE, elastic=True, path="status.guest.os"),
    WHY,
    DESCRIPTION,
    Column("DECIDED", lambda r, v: r.decision.why, RECORD, path="decision.why"),
    Column("MOVE", lambda r, v: vm_move(r), RECORD),
    Column("LAST MOVE", lambda r, v: r.decision.last_move, RECORD, path="decision.last_move"),
    Column("HOME", lambda r, v: last(r.decision.home), RECORD, path="decision.home"),
    Column(
        "WAITS FOR",
        lambda r, v: " ".join(map(last, r.decision.waits_for)),
        RECORD,
        path="decision.waits_for",
    ),
    Column("HA", lambda r, v: vm_ha(r), RECORD, path="spec.ha.policy"),
    Column("PLACEMENT", lambda r, v: vm_rules(r), RECORD),
    Column(
        "WAITS FOR RESTART",
        lambda r, v: ", ".join(r.status.pending_restart),
        RECORD,
        path="status.pending_restart",
    ),
    Column(
        "DISKS",
        lambda r, v: "\n".join(map(disk_line, r.spec.disks)),
        RECORD,
        path="spec.disks.volume",
        also=("volumes",),
    ),
    Column(
        "NICS",
        lambda r, v: "\n".join(map(nic_line, r.spec.nics)),
        RECORD,
        path="spec.nics.network",
        also=("networks",),
    ),
    Column(
        "HOST NAME", lambda r, v: r.status.guest.host_name, RECORD, path="status.guest.host_name"
    ),
    Column("CPU MODEL", lambda r, v: r.spec.cpu.model, RECORD, path="spec.cpu.model"),
    Column("MACHINE", lambda r, v: r.spec.machine, RECORD, path="spec.machine"),
    Column("FIRMWARE", lambda r, v: enum_word(r.spec, "firmware"), RECORD, path="spec.firmware"),
    Column("AUTOSTART", lambda r, v: enum_word(r.spec, "autostart"), RECORD, path="spec.autostart"),
    Column("ACCELERATOR", lambda r, v: r.status.accelerator, RECORD, path="status.accelerator"),
    Column("VNC", lambda r, v: r.status.vnc, RECORD, path="status.vnc"),
    Column("CRASHES", lambda r, v: str(r.status.crashes or ""), RECORD, path="status.crashes"),
    Column("UUID", lambda r, v: r.spec.uuid, RECORD, path="spec.uuid"),
    *COMMON,
)

VOLUME = (
    NAME,
    STATE,
    Column(
        "SIZE",
        lambda r, v: size(r.status.size_bytes or r.spec.size_bytes),
        right=True,
        path="status.size_bytes",
    ),
    Column(
        "USED",
        lambda r, v: size(r.status.allocated_bytes),
        right=True,
        path="status.allocated_bytes",
    ),
    Column(
        "FORMAT",
        lambda r, v: enum_word(r.spec, "format").removeprefix("image format "),
        path="spec.format",
    ),
    Column("PARENT", lambda r, v: ids(r.status.parent), elastic=True, path="status.parent"),
    AGE,
    WHY,
    DESCRIPTION,
    Column("NODE", lambda r, v: last(r.status.node), RECORD, path="status.node"),
    Column("SEALED", lambda r, v: "yes" if r.spec.sealed else "", RECORD, path="spec.sealed"),
    Column("PATH", lambda r, v: r.status.path, RECORD, path="status.path"),
    *COMMON,
)


def _whose(pool: Any) -> str:
    """A pool's node; of a shared one how many can use it."""
    if not pool.spec.shared:
        return last(pool.spec.node)
    parts = pool.status.nodes.values()
    ready = sum(part.ready for part in parts)
    return "all" if ready == len(parts) else f"{ready} of {len(parts)}"


POOL = (
    NAME,
    STATE,
    Column("DRIVER", lambda r, v: r.spec.WhichOneof("driver") or ""),
    Column("NODE", lambda r, v: _whose(r), path="spec.node"),
    Column(
        "SIZE", lambda r, v: size(r.status.capacity_bytes), right=True, path="status.capacity_bytes"
    ),
    Column(
        "FREE",
        lambda r, v: size(r.status.available_bytes),
        right=True,
        path="status.available_bytes",
    ),
    Column(
        "PROMISED",
        lambda r, v: size(r.status.promised_bytes),
        right=True,
        path="status.promised_bytes",
    ),
    Column(
        "PATH", lambda r, v: r.spec.directory.path, WIDE, elastic=True, path="spec.directory.path"
    ),
    WHY,
    DESCRIPTION,
    Column("RESERVE", lambda r, v: size(r.spec.reserve_bytes), RECORD, path="spec.reserve_bytes"),
    *COMMON,
)

SNAPSHOT = (
    NAME,
    Column("SIZE", lambda r, v: size(r.size_bytes), right=True, path="size_bytes"),
    Column("CLEAN", lambda r, v: "yes" if r.quiesced else "no", path="quiesced"),
    AGE,
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True, path="description"),
    *COMMON,
)

VM_SNAPSHOT = (
    NAME,
    Column("VOLUMES", lambda r, v: str(len(r.volume_snapshots)), right=True),
    Column("CLEAN", lambda r, v: "yes" if r.quiesced else "no", path="quiesced"),
    AGE,
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True, path="description"),
    Column(
        "OF", lambda r, v: "\n".join(map(ids, r.volume_snapshots)), RECORD, path="volume_snapshots"
    ),
    *COMMON,
)

NETWORK = (
    NAME,
    STATE,
    Column("NETWORK", lambda r, v: r.spec.ipv4.cidr, path="spec.ipv4.cidr", also=("cidr",)),
    Column("GATEWAY", lambda r, v: r.spec.ipv4.gateway, path="spec.ipv4.gateway"),
    Column("NAT", lambda r, v: "yes" if r.spec.nat else "no", path="spec.nat"),
    Column("ADDRESSES", lambda r, v: str(len(r.status.addresses)), right=True),
    Column("DOMAIN", lambda r, v: r.spec.domain, WIDE, path="spec.domain"),
    Column("BRIDGE", lambda r, v: r.status.bridge, WIDE, path="status.bridge"),
    WHY,
    DESCRIPTION,
    Column("NAMESPACE", lambda r, v: r.status.namespace, RECORD, path="status.namespace"),
    Column("MTU", lambda r, v: str(r.spec.mtu or ""), RECORD, path="spec.mtu"),
    Column("GIVEN", lambda r, v: "\n".join(f"{a.address}  {a.mac}  {last(a.vm)}/{a.nic}  "
           f"{a.host_name}" for a in r.status.addresses), RECORD),
    *COMMON,
)  # fmt: skip

IMAGE = (
    NAME,
    STATE,
    Column("SIZE", lambda r, v: size(r.status.size_bytes), right=True, path="status.size_bytes"),
    Column("ORIGIN", lambda r, v: r.status.origin, elastic=True, path="status.origin"),
    Column("POOL", lambda r, v: last(r.spec.pool), path="spec.pool"),
    AGE,
    WHY,
    DESCRIPTION,
    Column("VOLUME", lambda r, v: ids(r.status.volume), RECORD, path="status.volume"),
    Column("RECIPE HASH", lambda r, v: r.status.recipe_hash, RECORD, path="status.recipe_hash"),
    *COMMON,
)

RECIPE = (
    Column("NAME", lambda r, v: r.id),
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True),
    Column("TEXT", lambda r, v: r.text, RECORD),
)


def stage(operation: Any) -> str:
    """What it is doing, or why it failed; nothing of what is done and over."""
    done = enum_word(operation, "state") == "succeeded"
    return str(operation.error.message or ("" if done else operation.stage))


OPERATION = (
    NAME,
    Column("STATE", lambda r, v: enum_word(r, "state"), style=state_style, path="state"),
    Column("WHAT", lambda r, v: last(r.method), path="method"),
    Column("TARGET", lambda r, v: ids(r.target), elastic=True, path="target"),
    Column("DONE", lambda r, v: f"{r.percent}%", right=True, path="percent"),
    Column("STAGE", lambda r, v: stage(r), elastic=True, path="stage"),
    AGE,
    Column("CALLER", lambda r, v: r.caller, WIDE, path="caller"),
    Column("NODE", lambda r, v: last(r.node), WIDE, path="node"),
    Column("ATTEMPTS", lambda r, v: str(r.attempts), WIDE, right=True, path="attempts"),
    Column("STARTED", lambda r, v: when(r, "start_time"), RECORD, path="start_time"),
    Column("ENDED", lambda r, v: when(r, "end_time"), RECORD, path="end_time"),
    Column("LOG", lambda r, v: "\n".join(f"{line.time.ToDatetime():%H:%M:%S}  {line.text}"
           for line in r.log), RECORD, path="log.text"),
    *COMMON,
)  # fmt: skip

EVENT = (
    Column("TIME", lambda r, v: when(r, "time").removesuffix(" UTC"), path="time"),
    Column("SEVERITY", lambda r, v: enum_word(r, "severity"), style=state_style, path="severity"),
    Column("SUBJECT", lambda r, v: r.subject, WIDE, path="subject"),
    Column("MESSAGE", lambda r, v: r.message, elastic=True, path="message"),
    Column("WHY", lambda r, v: r.why, elastic=True, path="why"),
    Column("CAUSE", lambda r, v: r.cause, WIDE, path="cause"),
    Column("OPERATION", lambda r, v: last(r.operation), WIDE, path="operation"),
)

TOKEN = (
    NAME,
    Column("ROLE", lambda r, v: enum_word(r, "role"), path="role"),
    Column("EXPIRES", lambda r, v: when(r, "expire_time") or "never", path="expire_time"),
    AGE,
    Column("LAST USED", lambda r, v: ago(r.last_used, "time", v) or "never", WIDE, right=True,
           path="last_used.time", is_age=True),
    Column("FROM", lambda r, v: r.last_used.address, WIDE, path="last_used.address"),
    Column("NODE", lambda r, v: last(r.last_used.node), RECORD, path="last_used.node"),
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True, path="description"),
    *COMMON,
)  # fmt: skip

VERDICT = (
    Column("NODE", lambda r, v: last(r.node)),
    Column("FITS", lambda r, v: "yes" if r.fits else "no"),
    Column("SCORE", lambda r, v: f"{r.score:.2f}" if r.fits else "", right=True),
    Column("REASONS", lambda r, v: "; ".join(r.reasons), elastic=True),
)


EXPLAINED = (
    Column("NODE", lambda r, v: last(r.node)),
    Column("REASONS", lambda r, v: "\n".join(r.reasons)),
)
MOVE = (
    Column("VM", lambda r, v: last(r.vm)),
    Column("FROM", lambda r, v: last(r.source)),
    Column("TO", lambda r, v: last(r.target)),
    Column("WHY", lambda r, v: r.why, elastic=True),
)


def counts(found: Mapping[str, int]) -> str:
    """States with their counts: "3 running, 1 stopped"."""
    shown = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {state.lower().replace('_', ' ')}" for state, count in shown)


def reserved(cluster: Any) -> str:
    """Room that is kept for the VMs of failed nodes."""
    if not cluster.spec.reserve_nodes:
        return ""
    kept, free = cluster.memory_reserved_mib, cluster.memory_free_mib
    short = f"{mebibytes(-free)} missing" if free < 0 else f"{mebibytes(free) or 0} beyond"
    return f"{mebibytes(kept) or 0} for {cluster.spec.reserve_nodes} failed nodes, {short}"


CLUSTER: Sequence[Column] = (
    Column("NAME", lambda r, v: r.name),
    Column("HEALTH", lambda r, v: enum_word(r, "health"), style=state_style),
    Column("FAULTS", lambda r, v: "\n".join(r.faults)),
    Column("LEADER", lambda r, v: last(r.leader) or "none"),
    Column("VERSION", lambda r, v: r.version),
    Column("NODES", lambda r, v: counts(r.nodes)),
    Column("VMS", lambda r, v: counts(r.vms) or "none"),
    Column("MEMORY", lambda r, v: f"{mebibytes(r.memory_promised_mib) or 0} promised of "
           f"{mebibytes(r.memory_mib) or 0}"),
    Column("CPUS", lambda r, v: f"{r.vcpus_promised} promised of {r.cpus}"),
    Column("OPERATIONS", lambda r, v: f"{r.running_operations} running"),
    Column("VOLUMES", lambda r, v: str(r.volumes)),
    Column("IMAGES", lambda r, v: str(r.images)),
    Column("NETWORKS", lambda r, v: str(r.networks)),
    Column("RESERVED", lambda r, v: reserved(r)),
    Column("MAINTENANCE", lambda r, v: "on" if r.spec.maintenance else "off"),
    Column("HA", lambda r, v: "disarmed" if r.spec.ha_disarmed else "armed"),
)  # fmt: skip
SETTINGS = (
    Column("MAINTENANCE", lambda r, v: "on" if r.maintenance else "off"),
    Column("HA", lambda r, v: "disarmed" if r.ha_disarmed else "armed"),
    Column("RESERVE NODES", lambda r, v: str(r.reserve_nodes)),
    Column("FENCE MAX", lambda r, v: f"{r.fence_max_percent} % of the nodes at a time"),
    Column("FENCE DELAY", lambda r, v: f"{r.fence_delay_ms} ms"),
    Column("RESTART GRACE", lambda r, v: f"{r.restart_grace_s} s"),
    Column("FENCED NODES", lambda r, v: "are switched on again" if r.power_on_after_fence
           else "stay off"),
    Column("MIGRATIONS", lambda r, v: f"{r.migrations_per_node} per node, "
           f"{r.migrations_per_cluster} in the cluster"),
    Column("AUTO BALANCE", lambda r, v: "on" if r.auto_balance else "off"),
    Column("BALANCE THRESHOLD", lambda r, v: f"{r.balance_threshold_percent} %"),
    Column("AUDIT LOG", lambda r, v: f"the newest {r.audit_kept_entries} entries of "
           f"{r.audit_kept_days} days"),
)  # fmt: skip
WHOAMI = (
    Column("CALLER", lambda r, v: r.caller),
    Column("ROLE", lambda r, v: enum_word(r, "role")),
    Column("CLUSTER", lambda r, v: r.cluster),
    Column("VERSION", lambda r, v: r.version),
)
