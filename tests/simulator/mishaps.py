"""What goes wrong with hypervisors, guests, and VMs on their way: deeds of a script."""

from __future__ import annotations

from services.compute.drivers.fake import Script
from services.compute.drivers.hypervisor import Power
from tests.simulator import users
from tests.simulator.cluster import SimCluster
from tests.simulator.node import SimNode


def libvirt(cluster: SimCluster, words: list[str]) -> None:
    """libvirt n1 away|back."""
    node = cluster.nodes[words[0]]
    node.machine.hypervisor.away = words[1] == "away"
    cluster.tell(f"machine {node.id}", f"libvirt is {words[1]}")
    node.machine.hypervisor.stir()


def hang(cluster: SimCluster, words: list[str]) -> None:
    """hang n1 web start: the verb never ends well and does nothing; hang-late: it does it."""
    cluster.nodes[words[0]].machine.hypervisor.script(words[1]).hangs.add(words[2])
    cluster.tell(f"machine {words[0]}", f"libvirt hangs at {words[2]} {words[1]}")


def hang_late(cluster: SimCluster, words: list[str]) -> None:
    cluster.nodes[words[0]].machine.hypervisor.script(words[1]).works_late.add(words[2])
    cluster.tell(f"machine {words[0]}", f"libvirt answers too late to {words[2]} {words[1]}")


def unhang(cluster: SimCluster, words: list[str]) -> None:
    script = cluster.nodes[words[0]].machine.hypervisor.script(words[1])
    script.hangs.clear()
    script.works_late.clear()


def start_fails(cluster: SimCluster, words: list[str]) -> None:
    """start-fails n1 web 2: two starts fail there, then they work."""
    script = cluster.nodes[words[0]].machine.hypervisor.script(words[1])
    script.start_fails, script.start_fails_times = (
        "no such accelerator",
        script.starts + int(words[2]),
    )
    cluster.tell(f"machine {words[0]}", f"{words[2]} starts of {words[1]} will fail")


def where(cluster: SimCluster, vm: str) -> SimNode | None:
    """The node on which a VM's emulator is."""
    runners = cluster.runners(vm)
    return cluster.nodes[runners[0]] if runners else None


def guest_crash(cluster: SimCluster, words: list[str]) -> None:
    if (node := where(cluster, words[0])) is not None:
        cluster.tell(f"machine {node.id}", f"the emulator of {words[0]} crashes")
        node.machine.hypervisor.crash(words[0])


def guest_off(cluster: SimCluster, words: list[str]) -> None:
    if (node := where(cluster, words[0])) is not None:
        cluster.tell(f"machine {node.id}", f"the guest of {words[0]} switches itself off")
        node.machine.hypervisor.guest_shuts_down(words[0])


def guest_halts(cluster: SimCluster, words: list[str]) -> None:
    node = where(cluster, words[0])
    if node is not None and node.machine.hypervisor.power_of(words[0]) is Power.RUNNING:
        cluster.tell(f"machine {node.id}", f"the guest of {words[0]} halts: its storage failed")
        node.machine.hypervisor.storage_fails(words[0], "sda has no space")


def vanish(cluster: SimCluster, words: list[str]) -> None:
    if (node := where(cluster, words[0])) is not None:
        cluster.tell(f"machine {node.id}", f"libvirt loses the domain {words[0]}, which ends")
        node.machine.hypervisor.crash(words[0])
        node.machine.hypervisor.vanish(words[0])


def _script(cluster: SimCluster, vm: str) -> list[Script]:
    return [node.machine.hypervisor.script(vm) for node in cluster.nodes.values()]


def copying(cluster: SimCluster, words: list[str]) -> None:
    """copying web 8: its memory takes 8 s to be copied."""
    for script in _script(cluster, words[0]):
        script.copying_s = float(words[1])


def busy(cluster: SimCluster, words: list[str]) -> None:
    """busy web 300: it needs a pause of 300 ms; throttle: to be slowed down; never: post-copy."""
    for script in _script(cluster, words[0]):
        match words[1]:
            case "throttle":
                script.needs_throttle = True
            case "never":
                script.never_converges, script.post_copy_s = True, 3.0
            case pause:
                script.needs_downtime_ms = int(pause)


def refuses(cluster: SimCluster, words: list[str]) -> None:
    """refuses n2 web: the node cannot take it; refuses n2 web no: it can."""
    script = cluster.nodes[words[0]].machine.hypervisor.script(words[1])
    script.refuses = () if words[2:] else ("its processor is an older one",)


def move_fails(cluster: SimCluster, words: list[str]) -> None:
    """move-fails web: its next migrations end badly at the switch-over; ok: they do not."""
    for script in _script(cluster, words[0]):
        script.migration_fails = "" if words[1:] else "the other side hung up"


def interrupt(cluster: SimCluster, words: list[str]) -> None:
    """libvirt dies in the middle of a move: the VM stands still and nobody is told."""
    for node in cluster.nodes.values():
        if node.machine.hypervisor.moving(words[0]):
            cluster.tell(f"machine {node.id}", f"the move of {words[0]} is interrupted")
            node.machine.hypervisor.interrupt(words[0])


def tear(cluster: SimCluster, words: list[str]) -> None:
    """As interrupt, when the other machine has it already."""
    for node in cluster.nodes.values():
        if node.machine.hypervisor.torn(words[0]):
            cluster.tell(f"machine {node.id}", f"{words[0]} has gone, and nobody is told")


def cut_wire(cluster: SimCluster, words: list[str]) -> None:
    """cut-wire n2: its hypervisor and those of the others do not reach each other; heal-wire."""
    cluster.wire.cut.add(words[0])
    cluster.tell(f"machine {words[0]}", "other hypervisors do not reach it")


def heal_wire(cluster: SimCluster, words: list[str]) -> None:
    cluster.wire.cut.discard(words[0])
    cluster.tell(f"machine {words[0]}", "other hypervisors reach it again")


def cancel(cluster: SimCluster, words: list[str]) -> None:
    """cancel web: the operations about it, or about a node, that go on."""
    users.cancel(cluster, words[0])


def deaf(cluster: SimCluster, words: list[str]) -> None:
    """deaf web: its guest does not listen to the power button, wherever it runs."""
    for node in cluster.nodes.values():
        node.machine.hypervisor.script(words[0]).ignores_acpi = True
