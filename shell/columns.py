"""What is worth showing of each kind of thing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shell.measures import mebibytes, size, span
from shell.render import RECORD, WIDE, Column, View, short

GOOD = {"running", "ready", "online", "ok", "succeeded", "info"}
BUSY = {"starting", "stopping", "paused", "pending", "creating", "deleting", "warning", "cancelled"}
BAD = {"crashed", "failed", "unknown", "error"}


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


NAME = Column("NAME", lambda r, v: short(r))
AGE = Column("AGE", lambda r, v: ago(r.meta, "create_time", v), right=True)
DESCRIPTION = Column("DESCRIPTION", lambda r, v: r.spec.description, WIDE, elastic=True)
STATE = Column("STATE", lambda r, v: enum_word(r.status, "state") or "new", style=state_style)
WHY = Column("WHY", lambda r, v: r.status.why, WIDE, elastic=True)
COMMON = (
    Column("LABELS", lambda r, v: labels(r), RECORD),
    Column("CREATED", lambda r, v: when(r.meta, "create_time"), RECORD),
    Column("UID", lambda r, v: r.meta.uid, RECORD),
    Column("ETAG", lambda r, v: r.meta.etag, RECORD),
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


VM = (
    NAME,
    STATE,
    Column("NODE", lambda r, v: last(r.decision.node)),
    Column("CPUS", lambda r, v: str(r.status.vcpus or r.spec.cpu.vcpus or ""), right=True),
    Column("MEMORY", lambda r, v: vm_memory(r), right=True),
    Column("ADDRESS", lambda r, v: addresses(r), elastic=True),
    Column("TAGS", lambda r, v: " ".join(r.spec.tags), elastic=True),
    Column("UPTIME", up_for, WIDE, right=True),
    AGE,
    Column("OS", lambda r, v: r.status.guest.os, WIDE, elastic=True),
    WHY,
    DESCRIPTION,
    Column("DECIDED", lambda r, v: r.decision.why, RECORD),
    Column("WAITS FOR RESTART", lambda r, v: ", ".join(r.status.pending_restart), RECORD),
    Column("DISKS", lambda r, v: "\n".join(map(disk_line, r.spec.disks)), RECORD),
    Column("NICS", lambda r, v: "\n".join(map(nic_line, r.spec.nics)), RECORD),
    Column("HOST NAME", lambda r, v: r.status.guest.host_name, RECORD),
    Column("CPU MODEL", lambda r, v: r.spec.cpu.model, RECORD),
    Column("MACHINE", lambda r, v: r.spec.machine, RECORD),
    Column("FIRMWARE", lambda r, v: enum_word(r.spec, "firmware"), RECORD),
    Column("AUTOSTART", lambda r, v: enum_word(r.spec, "autostart"), RECORD),
    Column("ACCELERATOR", lambda r, v: r.status.accelerator, RECORD),
    Column("VNC", lambda r, v: r.status.vnc, RECORD),
    Column("CRASHES", lambda r, v: str(r.status.crashes or ""), RECORD),
    Column("UUID", lambda r, v: r.spec.uuid, RECORD),
    *COMMON,
)

VOLUME = (
    NAME,
    STATE,
    Column("SIZE", lambda r, v: size(r.status.size_bytes or r.spec.size_bytes), right=True),
    Column("USED", lambda r, v: size(r.status.allocated_bytes), right=True),
    Column("FORMAT", lambda r, v: enum_word(r.spec, "format").removeprefix("image format ")),
    Column("PARENT", lambda r, v: ids(r.status.parent), elastic=True),
    AGE,
    WHY,
    DESCRIPTION,
    Column("NODE", lambda r, v: last(r.status.node), RECORD),
    Column("SEALED", lambda r, v: "yes" if r.spec.sealed else "", RECORD),
    Column("PATH", lambda r, v: r.status.path, RECORD),
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
    Column("NODE", lambda r, v: _whose(r)),
    Column("SIZE", lambda r, v: size(r.status.capacity_bytes), right=True),
    Column("FREE", lambda r, v: size(r.status.available_bytes), right=True),
    Column("PROMISED", lambda r, v: size(r.status.promised_bytes), right=True),
    Column("PATH", lambda r, v: r.spec.directory.path, WIDE, elastic=True),
    WHY,
    DESCRIPTION,
    Column("RESERVE", lambda r, v: size(r.spec.reserve_bytes), RECORD),
    *COMMON,
)

SNAPSHOT = (
    NAME,
    Column("SIZE", lambda r, v: size(r.size_bytes), right=True),
    Column("CLEAN", lambda r, v: "yes" if r.quiesced else "no"),
    AGE,
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True),
    *COMMON,
)

VM_SNAPSHOT = (
    NAME,
    Column("VOLUMES", lambda r, v: str(len(r.volume_snapshots)), right=True),
    Column("CLEAN", lambda r, v: "yes" if r.quiesced else "no"),
    AGE,
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True),
    Column("OF", lambda r, v: "\n".join(map(ids, r.volume_snapshots)), RECORD),
    *COMMON,
)

NETWORK = (
    NAME,
    STATE,
    Column("NETWORK", lambda r, v: r.spec.ipv4.cidr),
    Column("GATEWAY", lambda r, v: r.spec.ipv4.gateway),
    Column("NAT", lambda r, v: "yes" if r.spec.nat else "no"),
    Column("ADDRESSES", lambda r, v: str(len(r.status.addresses)), right=True),
    Column("DOMAIN", lambda r, v: r.spec.domain, WIDE),
    Column("BRIDGE", lambda r, v: r.status.bridge, WIDE),
    WHY,
    DESCRIPTION,
    Column("NAMESPACE", lambda r, v: r.status.namespace, RECORD),
    Column("MTU", lambda r, v: str(r.spec.mtu or ""), RECORD),
    Column("GIVEN", lambda r, v: "\n".join(f"{a.address}  {a.mac}  {last(a.vm)}/{a.nic}  "
           f"{a.host_name}" for a in r.status.addresses), RECORD),
    *COMMON,
)  # fmt: skip

IMAGE = (
    NAME,
    STATE,
    Column("SIZE", lambda r, v: size(r.status.size_bytes), right=True),
    Column("ORIGIN", lambda r, v: r.status.origin, elastic=True),
    Column("POOL", lambda r, v: last(r.spec.pool)),
    AGE,
    WHY,
    DESCRIPTION,
    Column("VOLUME", lambda r, v: ids(r.status.volume), RECORD),
    Column("RECIPE HASH", lambda r, v: r.status.recipe_hash, RECORD),
    *COMMON,
)

RECIPE = (
    Column("NAME", lambda r, v: r.id),
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True),
    Column("TEXT", lambda r, v: r.text, RECORD),
)

NODE = (
    NAME,
    Column("STATE", lambda r, v: enum_word(r.decision, "state") or "new", style=state_style),
    Column("CPUS", lambda r, v: str(r.status.cpus), right=True),
    Column("MEMORY", lambda r, v: mebibytes(r.status.memory_mib), right=True),
    Column("FOR VMS", lambda r, v: mebibytes(r.status.memory_for_vms_mib), right=True),
    Column("ACCELERATOR", lambda r, v: r.status.accelerator),
    Column("VERSION", lambda r, v: r.status.version),
    Column("QEMU", lambda r, v: r.status.emulator_version, WIDE),
    Column("LIBVIRT", lambda r, v: r.status.libvirt_version, WIDE),
    Column("KERNEL", lambda r, v: r.status.kernel, WIDE, elastic=True),
    Column("FAULTS", lambda r, v: "\n".join(r.status.faults), RECORD),
    Column("WHY", lambda r, v: r.decision.why, RECORD),
    Column("ACCELERATOR WHY", lambda r, v: r.status.accelerator_why, RECORD),
    Column("SERVICES", lambda r, v: "\n".join(f"{s.service}  {s.address}"
           for s in r.status.services), RECORD),
    Column("CPU MODELS", lambda r, v: " ".join(r.status.cpu_models), RECORD),
    *COMMON,
)  # fmt: skip


def stage(operation: Any) -> str:
    """What it is doing, or why it failed; nothing of what is done and over."""
    done = enum_word(operation, "state") == "succeeded"
    return str(operation.error.message or ("" if done else operation.stage))


OPERATION = (
    NAME,
    Column("STATE", lambda r, v: enum_word(r, "state"), style=state_style),
    Column("WHAT", lambda r, v: last(r.method)),
    Column("TARGET", lambda r, v: ids(r.target), elastic=True),
    Column("DONE", lambda r, v: f"{r.percent}%", right=True),
    Column("STAGE", lambda r, v: stage(r), elastic=True),
    AGE,
    Column("CALLER", lambda r, v: r.caller, WIDE),
    Column("NODE", lambda r, v: last(r.node), WIDE),
    Column("ATTEMPTS", lambda r, v: str(r.attempts), WIDE, right=True),
    Column("STARTED", lambda r, v: when(r, "start_time"), RECORD),
    Column("ENDED", lambda r, v: when(r, "end_time"), RECORD),
    Column("LOG", lambda r, v: "\n".join(f"{line.time.ToDatetime():%H:%M:%S}  {line.text}"
           for line in r.log), RECORD),
    *COMMON,
)  # fmt: skip

EVENT = (
    Column("TIME", lambda r, v: when(r, "time").removesuffix(" UTC")),
    Column("SEVERITY", lambda r, v: enum_word(r, "severity"), style=state_style),
    Column("SUBJECT", lambda r, v: r.subject, WIDE),
    Column("MESSAGE", lambda r, v: r.message, elastic=True),
    Column("WHY", lambda r, v: r.why, elastic=True),
    Column("CAUSE", lambda r, v: r.cause, WIDE),
    Column("OPERATION", lambda r, v: last(r.operation), WIDE),
)

TOKEN = (
    NAME,
    Column("ROLE", lambda r, v: enum_word(r, "role")),
    Column("EXPIRES", lambda r, v: when(r, "expire_time") or "never"),
    AGE,
    Column("DESCRIPTION", lambda r, v: r.description, elastic=True),
    *COMMON,
)

VERDICT = (
    Column("NODE", lambda r, v: last(r.node)),
    Column("FITS", lambda r, v: "yes" if r.fits else "no"),
    Column("SCORE", lambda r, v: f"{r.score:.2f}" if r.fits else "", right=True),
    Column("REASONS", lambda r, v: "; ".join(r.reasons), elastic=True),
)


def counts(found: Mapping[str, int]) -> str:
    """States with their counts: "3 running, 1 stopped"."""
    shown = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {state.lower().replace('_', ' ')}" for state, count in shown)


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
)  # fmt: skip
WHOAMI = (
    Column("CALLER", lambda r, v: r.caller),
    Column("ROLE", lambda r, v: enum_word(r, "role")),
    Column("CLUSTER", lambda r, v: r.cluster),
    Column("VERSION", lambda r, v: r.version),
)
