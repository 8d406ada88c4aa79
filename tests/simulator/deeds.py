"""Everything that a script can do to a cluster: what users ask, and what goes wrong.

    at 12.0 cut n2            at 12.0 kill-at n1 compute 7
    at 30.0 start web         at 40.0 heal n2

`DEEDS` is the whole list. A deed that makes no sense just then (power for a machine that has it)
does nothing: a script that lost some of its lines is still a script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.fake import Script
from services.compute.drivers.hypervisor import Power
from tests.simulator import users
from tests.simulator.cluster import BOOT_S, SERVICES, SimCluster, SimNode
from tests.simulator.engine import ProcessDied
from tests.simulator.power import address_of
from tests.simulator.world import Deed

Do = Callable[[SimCluster, list[str]], None]


def services(words: list[str]) -> tuple[str, ...]:
    """The services that are meant: the named one, or all."""
    return (words[0],) if words and words[0] in SERVICES else SERVICES


# --- Machines and processes.


def power_cut(cluster: SimCluster, words: list[str]) -> None:
    cluster.nodes[words[0]].power_off("loses its power")


def mains_off(cluster: SimCluster, words: list[str]) -> None:
    """The machine loses its power, and its controller too: that answers nobody."""
    node = cluster.nodes[words[0]]
    node.controller.dead = True
    node.power_off("loses its power, and its controller too")


def bmc(cluster: SimCluster, words: list[str]) -> None:
    """bmc n1 dead|lying|stuck|refuses|ok, bmc n1 slow 2: how its controller behaves."""
    controller, how = cluster.nodes[words[0]].controller, words[1]
    for fault in ("dead", "lying", "stuck", "refuses"):
        setattr(controller, fault, fault == how)
    controller.slow_s = float(words[2]) if how == "slow" else 0.0
    cluster.tell(f"controller {words[0]}", f"is {' '.join(words[1:])}")


def cut_bmc(cluster: SimCluster, words: list[str]) -> None:
    """cut-bmc n1 n2: n1 does not reach the controller of n2; heal-bmc: it does."""
    cluster.nodes[words[0]].unreached.add(address_of(words[1]))
    cluster.tell(words[0], f"does not reach the controller of {words[1]}")


def heal_bmc(cluster: SimCluster, words: list[str]) -> None:
    cluster.nodes[words[0]].unreached.discard(address_of(words[1]))
    cluster.tell(words[0], f"reaches the controller of {words[1]} again")


def power_on(cluster: SimCluster, words: list[str]) -> None:
    """power-on n1 20 40: its services start after 20 s, and see the state of 40 s before that."""
    node = cluster.nodes[words[0]]
    if not node.machine.on:
        node.controller.dead = False
    boot_s, behind_s = [*map(float, words[1:]), *((BOOT_S, 0.0)[len(words) - 1 :])]
    node.power_on(boot_s, behind_s)


def reset(cluster: SimCluster, words: list[str]) -> None:
    cluster.nodes[words[0]].reset("is reset")


def kill(cluster: SimCluster, words: list[str]) -> None:
    node = cluster.nodes[words[0]]
    for service in services(words[1:]):
        node.end(service)


def kill_at(cluster: SimCluster, words: list[str]) -> None:
    """kill-at n1 compute 7: at the seventh thing that it begins or ends from now on."""
    node, service, gates = cluster.nodes[words[0]], words[1], int(words[2])
    process = node.processes.get(service)
    if process is not None and process.alive:

        def deed() -> None:
            cluster.tell(process.name, f"is killed at: {process.last_gate}")
            process.die()

        process.arm(gates, deed, stands_still=False)


def stop(cluster: SimCluster, words: list[str]) -> None:
    """restart n1 compute 3: it ends in order, and is started 3 s later."""
    node, back_s = cluster.nodes[words[0]], float(words[-1])
    for service in services(words[1:-1]):
        cluster.tell(f"{node.id}/{service}", "is asked to end")
        node.end_in_order(service, back_s)


def kill_when(cluster: SimCluster, words: list[str]) -> None:
    """kill-when n1 compute before start; kill-when n1 compute after destroy: a driver's verb."""
    node, service, when, verb = cluster.nodes[words[0]], words[1], words[2], words[3]
    process = node.processes.get(service)
    if process is not None and process.alive:

        def deed() -> None:
            cluster.tell(process.name, f"is killed {when} it could {verb}" if when == "before"
                         else f"is killed after: {verb}")  # fmt: skip
            process.die()

        process.arm_on(verb if when == "before" else f"{verb} done", deed)


def freeze_when(cluster: SimCluster, words: list[str]) -> None:
    """freeze-when n1 compute before feed 2.5: it stands still there, and goes on from there."""
    node, service, when, verb, seconds = cluster.nodes[words[0]], *words[1:4], float(words[4])
    process = node.processes.get(service)
    if process is None or not process.alive:
        return

    def deed() -> None:
        process.will_stand_still = False
        cluster.tell(process.name, f"stands still for {seconds:g} s {when}: {verb}")
        node.freeze((service,), seconds)

    process.will_stand_still = True
    process.arm_on(verb if when == "before" else f"{verb} done", deed)


def kill_told(cluster: SimCluster, words: list[str]) -> None:
    """kill-told n1 coordinator n3 FENCED: it dies the moment that it has said these words."""
    node, service, text = cluster.nodes[words[0]], words[1], " ".join(words[2:])

    def deed() -> None:
        process = node.processes[service]
        cluster.tell(process.name, "is killed there")
        process.die()
        raise ProcessDied

    cluster.listeners.append((f"{node.id}/{service}", text, deed))


def freeze_told(cluster: SimCluster, words: list[str]) -> None:
    """freeze-told n1 coordinator 20 FENCED: it stands still for 20 s as soon as it has said so."""
    node, service, seconds = cluster.nodes[words[0]], words[1], float(words[2])

    def deed() -> None:
        cluster.tell(f"{node.id}/{service}", f"stands still for {seconds:g} s")
        node.freeze((service,), seconds)

    if service in node.processes:
        node.processes[service].will_stand_still = True
    cluster.listeners.append((f"{node.id}/{service}", " ".join(words[3:]), deed))


def freeze(cluster: SimCluster, words: list[str]) -> None:
    """freeze n1 compute 20: the process stands still for 20 s; without a service the machine."""
    node, seconds = cluster.nodes[words[0]], float(words[-1])
    meant = services(words[1:-1])
    cluster.tell(f"{node.id}", f"{' and '.join(meant)} stand still for {seconds:g} s")
    node.freeze(meant, seconds)


def freeze_at(cluster: SimCluster, words: list[str]) -> None:
    """freeze-at n1 compute 7 20: in the middle of a step."""
    node, service, gates, seconds = cluster.nodes[words[0]], words[1], int(words[2]), words[3]
    process = node.processes.get(service)
    if process is not None and process.alive:

        def deed() -> None:
            cluster.tell(process.name, f"stands still for {seconds} s at: {process.last_gate}")
            node.freeze((service,), float(seconds))

        process.arm(gates, deed, stands_still=True)


def start_old(cluster: SimCluster, words: list[str]) -> None:
    """restart-behind n1 compute 5: it dies, and its next start sees the state of 5 s ago."""
    node, service, behind_s = cluster.nodes[words[0]], words[1], float(words[2])
    process = node.processes.get(service)
    if process is not None and process.alive:
        process.on_death.clear()
        node.end(service)
        cluster.ensemble.orphaned(process)
        cluster.tell(process.name, f"starts anew and sees the state of {behind_s:g} s ago")
        node.start(service, behind_s)


def skew(cluster: SimCluster, words: list[str]) -> None:
    node = cluster.nodes[words[0]]
    node.clock.skew_s += float(words[1])
    cluster.tell(f"machine {node.id}", f"its wall clock jumps by {float(words[1]):g} s")


# --- The store.


def cut(cluster: SimCluster, words: list[str]) -> None:
    node = cluster.nodes[words[0]]
    meant = services(words[1:])
    cluster.tell(node.id, f"{' and '.join(meant)} cannot reach the store")
    node.set_cut(meant, True)


def heal(cluster: SimCluster, words: list[str]) -> None:
    node = cluster.nodes[words[0]]
    meant = services(words[1:])
    cluster.tell(node.id, f"{' and '.join(meant)} can reach the store again")
    node.set_cut(meant, False)


def late(cluster: SimCluster, words: list[str]) -> None:
    """late n1 compute 3: what others write is seen 3 s later; 0: as usual."""
    node, service, seconds = cluster.nodes[words[0]], words[1], float(words[2])
    node.late[service] = seconds
    cluster.tell(f"{node.id}/{service}", f"sees what others write {seconds:g} s later")
    if service in node.stores:
        node.stores[service].late_s = seconds
        node.stores[service].news()


def expire(cluster: SimCluster, words: list[str]) -> None:
    store = cluster.nodes[words[0]].stores.get(words[1])
    if store is not None:
        cluster.tell(f"{words[0]}/{words[1]}", "the store ends its session")
        store.expire()


def lose_answer(cluster: SimCluster, words: list[str]) -> None:
    """lose-answer n1 compute 2 15: its second commit is carried out, then it is cut for 15 s."""
    store = cluster.nodes[words[0]].stores.get(words[1])
    if store is not None:
        cluster.tell(f"{words[0]}/{words[1]}", f"the answer to commit {words[2]} will be lost")
        store.lose_answer(int(words[2]), float(words[3]))


def store_down(cluster: SimCluster, words: list[str]) -> None:
    cluster.tell("store", f"answers nobody for {float(words[0]):g} s")
    cluster.ensemble.go_down(float(words[0]))


# --- Hypervisors and guests.


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


# --- Users.


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


def _move(verb: str) -> Do:
    return lambda cluster, words: users.migrate(cluster, verb, words)


def _power(verb: str) -> Do:
    return lambda cluster, words: users.power(cluster, verb, words[0])


def wait(cluster: SimCluster, words: list[str]) -> None:
    """Nothing: the story goes on until here before every fault is over."""


DEEDS: Mapping[str, Do] = {
    "wait": wait,
    "power-cut": power_cut,
    "mains-off": mains_off,
    "bmc": bmc,
    "cut-bmc": cut_bmc,
    "heal-bmc": heal_bmc,
    "power-on": power_on,
    "reset": reset,
    "kill": kill,
    "kill-at": kill_at,
    "kill-when": kill_when,
    "freeze-when": freeze_when,
    "kill-told": kill_told,
    "freeze-told": freeze_told,
    "restart": stop,
    "freeze": freeze,
    "freeze-at": freeze_at,
    "restart-behind": start_old,
    "skew": skew,
    "cut": cut,
    "heal": heal,
    "late": late,
    "expire": expire,
    "lose-answer": lose_answer,
    "store-down": store_down,
    "libvirt": libvirt,
    "hang": hang,
    "hang-late": hang_late,
    "unhang": unhang,
    "start-fails": start_fails,
    "guest-crash": guest_crash,
    "guest-off": guest_off,
    "guest-halts": guest_halts,
    "vanish": vanish,
    "deaf": deaf,
    "copying": copying,
    "busy": busy,
    "refuses": refuses,
    "move-fails": move_fails,
    "interrupt": interrupt,
    "tear": tear,
    "cut-wire": cut_wire,
    "heal-wire": heal_wire,
    "cancel": cancel,
    "create": create,
    "delete": delete,
    "reboot": reboot,
    "drain": drain,
    "ready": ready,
    "confirm-dead": confirm_dead,
    "set": setting,
    "lead": lead,
    **{verb: _power(verb) for verb in users.POWER},
    **{verb: _move(verb) for verb in users.MOVES},
}


def do(cluster: SimCluster, deed: Deed) -> None:
    """Does one. "@source:web" is the node that web is on, "@target:web" the one it moves to; where
    there is none nothing is done."""
    name, *words = deed.words
    found = [_resolved(cluster, word) for word in words]
    if all(found):
        DEEDS[name](cluster, found)


def _resolved(cluster: SimCluster, word: str) -> str:
    if not word.startswith("@"):
        return word
    role, _, vm = word[1:].partition(":")
    row = cluster.ensemble.snapshot.find(vm_pb2.Vm, f"vms/{vm}")
    if row is None:
        return ""
    node = row.decision.migration.target if role == "target" else row.decision.node
    return node.removeprefix("nodes/")


def heal_all(cluster: SimCluster) -> None:
    """Everything that was broken works again, and stays so; nothing else is armed."""
    cluster.tell("all", "every fault is over")
    cluster.wire.cut.clear()
    cluster.listeners.clear()
    for node in cluster.nodes.values():
        node.stopped.clear()
        node.machine.hypervisor.away = False
        node.machine.hypervisor.heal()
        for process in node.processes.values():
            process.disarm()
        node.set_cut(SERVICES, False)
        node.unreached.clear()
        node.controller.dead = node.controller.lying = False
        node.controller.stuck = node.controller.refuses = False
        node.controller.slow_s = 0.0
        for service in SERVICES:
            node.late[service] = 0.0
            if service in node.stores:
                node.stores[service].calm()
        node.power_on(5.0)


def running_vms(cluster: SimCluster) -> list[str]:
    """VMs that were decided to run."""
    return [
        vm.name.removeprefix("vms/")
        for vm in cluster.ensemble.snapshot.rows(vm_pb2.Vm)
        if vm.decision.power == vm_pb2.POWER_STATE_RUNNING
    ]
