"""Everything that a script can do to a cluster: what users ask, and what goes wrong.

    at 12.0 cut n2            at 12.0 kill-at n1 compute 7
    at 30.0 start web         at 40.0 heal n2

`DEEDS` is the whole list. A deed that makes no sense just then (power for a machine that has it)
does nothing: a script that lost some of its lines is still a script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pvc.compute.v1 import vm_pb2
from tests.simulator import mishaps, outages, users, wishes
from tests.simulator.cluster import SimCluster
from tests.simulator.node import SERVICES
from tests.simulator.world import Deed

Do = Callable[[SimCluster, list[str]], None]


def wait(cluster: SimCluster, words: list[str]) -> None:
    """Nothing: the story goes on until here before every fault is over."""


DEEDS: Mapping[str, Do] = {
    "wait": wait,
    "power-cut": outages.power_cut,
    "mains-off": outages.mains_off,
    "bmc": outages.bmc,
    "cut-bmc": outages.cut_bmc,
    "heal-bmc": outages.heal_bmc,
    "power-on": outages.power_on,
    "reset": outages.reset,
    "kill": outages.kill,
    "kill-at": outages.kill_at,
    "kill-when": outages.kill_when,
    "freeze-when": outages.freeze_when,
    "kill-told": outages.kill_told,
    "freeze-told": outages.freeze_told,
    "restart": outages.stop,
    "freeze": outages.freeze,
    "freeze-at": outages.freeze_at,
    "restart-behind": outages.start_old,
    "skew": outages.skew,
    "cut": outages.cut,
    "heal": outages.heal,
    "late": outages.late,
    "expire": outages.expire,
    "lose-answer": outages.lose_answer,
    "store-down": outages.store_down,
    "libvirt": mishaps.libvirt,
    "hang": mishaps.hang,
    "hang-late": mishaps.hang_late,
    "unhang": mishaps.unhang,
    "start-fails": mishaps.start_fails,
    "guest-crash": mishaps.guest_crash,
    "guest-off": mishaps.guest_off,
    "guest-halts": mishaps.guest_halts,
    "vanish": mishaps.vanish,
    "deaf": mishaps.deaf,
    "copying": mishaps.copying,
    "busy": mishaps.busy,
    "refuses": mishaps.refuses,
    "move-fails": mishaps.move_fails,
    "interrupt": mishaps.interrupt,
    "tear": mishaps.tear,
    "cut-wire": mishaps.cut_wire,
    "heal-wire": mishaps.heal_wire,
    "cancel": mishaps.cancel,
    "create": wishes.create,
    "delete": wishes.delete,
    "reboot": wishes.reboot,
    "drain": wishes.drain,
    "ready": wishes.ready,
    "confirm-dead": wishes.confirm_dead,
    "set": wishes.setting,
    "lead": wishes.lead,
    **{verb: wishes.power_verb(verb) for verb in users.POWER},
    **{verb: wishes.move_verb(verb) for verb in users.MOVES},
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
