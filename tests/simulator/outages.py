"""What goes wrong with machines, their processes, their power and the store: deeds of a script."""

from __future__ import annotations

from tests.simulator.cluster import SimCluster
from tests.simulator.engine import ProcessDied
from tests.simulator.node import BOOT_S, SERVICES
from tests.simulator.power import address_of


def services(words: list[str]) -> tuple[str, ...]:
    """The services that are meant: the named one, or all."""
    return (words[0],) if words and words[0] in SERVICES else SERVICES


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
    """The servers end a session though they hear of it; not that of a node with a watchdog, to
    which they have promised not to (Store.prove)."""
    node, service = cluster.nodes[words[0]], words[1]
    store = node.stores.get(service)
    if store is not None and (service != "compute" or node.watchdog is None):
        cluster.tell(f"{node.id}/{service}", "the store ends its session")
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
