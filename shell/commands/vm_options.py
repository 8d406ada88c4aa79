"""The options that say what a VM is: each a field of its spec, the same for `create` and
`modify`."""

from __future__ import annotations

from typing import Any

import click

from shell.commands.fields import MIB, field
from shell.tree import Pair, Size, live_names, stacked

METHODS = ("live", "shutdown")
SELECTORS = ("mem", "memprov", "load", "vcpus", "vms")


class Rule(click.ParamType[Any]):
    """A rule about nodes or other VMs, as it is written; becomes the contract's message."""

    name = "RULE"

    def __init__(self, kind: str) -> None:
        """kind: "node_rule", "vm_rule"."""
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The message; "" stays "", for none."""
        from shell.spec import node_rule, vm_rule

        if not isinstance(value, str) or value == "":
            return value
        try:
            return (node_rule if self._kind == "node_rule" else vm_rule)(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


cpu_options = stacked(
    field("vm.spec.cpu.vcpus", "--vcpus", "--cpus", type=int, help="Processors."),
    field("vm.spec.cpu.max_vcpus", "--max-vcpus", type=int, help="Most without a restart."),
    field("vm.spec.cpu.sockets", "--sockets", type=int, help="Sockets that the guest sees."),
    field("vm.spec.cpu.cores", "--cores", type=int, help="Cores of a socket."),
    field("vm.spec.cpu.threads", "--threads", type=int, help="Threads of a core."),
    field("vm.spec.cpu.model", "--cpu-model", help="A QEMU model, or host."),
)
memory_options = stacked(
    field("vm.spec.memory.memory_mib", "--memory", type=Size("M"), per=MIB,
          help="Memory: 2G, 768M (bare: MiB)."),
    field("vm.spec.memory.max_memory_mib", "--max-memory", type=Size("M"), per=MIB,
          help="Most memory without a restart."),
)  # fmt: skip
device_options = stacked(
    field("vm.spec.serial_console", "--serial-console/--no-serial-console", default=None,
          help="A serial console, or none."),
    field("vm.spec.vnc", "--vnc/--no-vnc", default=None, help="A VNC screen, or none."),
    field("vm.spec.guest_agent", "--guest-agent/--no-guest-agent", default=None,
          help="A channel to the guest's agent, or none."),
    field("vm.spec.rng", "--rng/--no-rng", default=None, help="A random number generator."),
)  # fmt: skip
run_options = stacked(
    field("vm.spec.machine", "--machine", help="q35, pc, or a versioned name."),
    field("vm.spec.firmware", "--firmware", type=click.Choice(["bios", "uefi"]),
          help="What boots the guest."),
    field("vm.spec.description", "--description", help="A text for people."),
    field("vm.spec.autostart", "--autostart", type=click.Choice(["last-state", "always", "never"]),
          help="Whether it starts with its node."),
    field("vm.spec.shutdown_timeout_s", "--shutdown-timeout", type=int,
          help="Seconds, before it is cut."),
    field("vm.spec.crash_policy.action", "--on-crash", type=click.Choice(["restart", "leave"]),
          help="What to do when the emulator ends by itself."),
    field("vm.spec.crash_policy.max_restarts", "--max-restarts", type=int,
          help="Most restarts in a row after crashes."),
    field("vm.spec.crash_policy.delay_s", "--restart-delay", type=int,
          help="Seconds before the first of them."),
)  # fmt: skip
shape_options = stacked(cpu_options, memory_options, device_options, run_options)

ha_options = stacked(
    field("vm.spec.ha.policy", "--ha-policy", type=click.Choice(["restart", "stop", "ignore"]),
          help="What becomes of it when its node fails."),
    field("vm.spec.ha.priority", "--ha-priority", type=int, help="Higher starts first."),
    field("vm.spec.ha.start_after", "--start-after", multiple=True,
          shell_complete=live_names("vms"),
          help='A VM that must run before it starts by itself; "" for none.'),
    field("vm.spec.ha.start_after_timeout_s", "--start-after-timeout", type=int,
          help="Seconds that it waits for those."),
    field("vm.spec.ha.max_tries", "--ha-max-tries", type=int,
          help="Most nodes in a row that it is tried on."),
)  # fmt: skip
place_options = stacked(
    ha_options,
    field("vm.spec.placement.selector", "--selector", "--node-selector",
          type=click.Choice(SELECTORS), help="What makes a node the better."),
    field("vm.spec.placement.nodes", "--limit-nodes", "--limit", multiple=True,
          shell_complete=live_names("nodes"),
          help='A node that it may be on, and no others; "" for all.'),
    field("vm.spec.placement.node_rules", "--node-rule", multiple=True, type=Rule("node_rule"),
          help="TAG of nodes that it should be on, avoid:TAG; with :required a must."),
    field("vm.spec.placement.vm_rules", "--vm-rule", multiple=True, type=Rule("vm_rule"),
          help='with:TAG or apart:TAG of other VMs; with :required a must. "" for none.'),
    field("vm.spec.placement.balance", "--balance/--no-balance", default=None,
          help="Balancing may move it, or not."),
    field("vm.spec.migration.method", "--migration-method", type=click.Choice([*METHODS, "none"]),
          help="How it moves; none: not at all."),
    field("vm.spec.migration.allow_post_copy", "--allow-post-copy/--no-post-copy", default=None,
          help="Run on the target before all memory is there, where it must."),
    field("vm.spec.migration.max_downtime_ms", "--max-downtime", type=int,
          help="Longest pause when it moves, in ms."),
)  # fmt: skip
label_option = field("vm.meta.labels", "--label", multiple=True, type=Pair(),
                     help="A label of your own: KEY=VALUE.")  # fmt: skip
disk_options = stacked(
    field("DiskSpec.id", "--id", "disk_id", help="Its name within the VM; the next free one."),
    field("DiskSpec.bus", "--bus", type=click.Choice(["virtio-scsi", "virtio-blk", "sata"]),
          help="How it is connected."),
    field("DiskSpec.cache", "--cache",
          type=click.Choice(["none", "writeback", "writethrough", "unsafe"]),
          help="How the node caches it."),
    field("DiskSpec.discard", "--discard/--no-discard", default=None,
          help="Blocks that the guest discards are given back, or not."),
    field("DiskSpec.boot_order", "--boot-order", type=int, zero=True,
          help="Its place in the boot order; 0 for none."),
    field("DiskSpec.read_only", "--read-only", is_flag=True, help="The guest cannot write it."),
)  # fmt: skip
nic_options = stacked(
    field("NicSpec.id", "--id", "nic_id", help="Its name within the VM; the next free one."),
    field("NicSpec.mac", "--mac", "-a", "--macaddr", help="Its hardware address; else chosen."),
    field("NicSpec.model", "--model", "-m", type=click.Choice(["virtio", "e1000e"]),
          help="What the guest sees."),
    field("NicSpec.boot_order", "--boot-order", type=int, zero=True,
          help="Its place in the boot order; 0 for none."),
    field("NicSpec.link_down", "--link-down", is_flag=True, help="The cable is out."),
)  # fmt: skip
