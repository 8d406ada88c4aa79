"""Worlds and scripts by seed: what users do, and everything that can go wrong, mixed.

The same seed gives the same world and script for ever, as long as this file is the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.simulator.world import NODE_DEFAULTS, VM_DEFAULTS, Deed, Script, Thing, World

SERVICES = ("compute", "coordinator")
SPAN_S = 240.0
"""How long things go wrong."""
DEEDS_MIN, DEEDS_MAX = 6, 22
STAY_OFF_SHARE = 0.2
"""Of the worlds: clusters that leave fenced nodes switched off."""
VM_VERBS = ("start", "destroy", "define", "shutdown", "undefine", "pause", "resume")

Make = Callable[["Chance"], Iterator[tuple[float, tuple[str, ...]]]]


class Chance:
    """A source of chance that knows the world."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes = [f"n{number + 1}" for number in range(self.random.choice((3, 3, 3, 4, 5)))]
        self.vms = [f"v{number + 1}" for number in range(self.random.randint(3, 8))]
        self.made = 0

    def node(self) -> str:
        return self.random.choice(self.nodes)

    def vm(self) -> str:
        return self.random.choice(self.vms)

    def service(self) -> str:
        return self.random.choice(SERVICES)

    def seconds(self, low: float, high: float) -> float:
        """More often short than long."""
        return round(low + (high - low) * self.random.random() ** 2, 2)


def world_of(seed: int) -> World:
    """The world that goes with a seed."""
    chance = Chance(seed)
    options = {"locks": chance.random.choice(("on", "off"))}
    if random.Random(f"power {seed}").random() < STAY_OFF_SHARE:
        options["power_on_after_fence"] = "0"
    nodes = tuple(Thing(node, _node_facts(chance)) for node in chance.nodes)
    vms = tuple(Thing(vm, _vm_facts(chance)) for vm in chance.vms)
    return World(seed, nodes, vms, options)


def _node_facts(chance: Chance) -> dict[str, str]:
    facts = dict(NODE_DEFAULTS)
    facts["memory"] = chance.random.choice(("4096", "8192", "8192", "16384"))
    if chance.random.random() < 0.2:
        facts["bmc"] = chance.random.choice(("no", "no", "stuck", "lying", "dead", "anothers"))
    if chance.random.random() < 0.25:
        facts["watchdog"] = "no"
    if chance.random.random() < 0.2:
        facts["watchdog-rate"] = f"{chance.random.uniform(0.995, 1.005):.4f}"
    if chance.random.random() < 0.3:
        facts["skew"] = f"{chance.random.uniform(-90, 90):.1f}"
    if chance.random.random() < 0.3:
        facts["rate"] = f"{chance.random.uniform(0.995, 1.005):.4f}"
    return facts


def _vm_facts(chance: Chance) -> dict[str, str]:
    facts = dict(VM_DEFAULTS)
    facts["memory"] = chance.random.choice(("512", "1024", "2048"))
    if chance.random.random() < 0.15:
        facts["power"] = "off"
    if chance.random.random() < 0.2:
        facts["postcopy"] = "yes"
    return facts


def script_of(seed: int) -> Script:
    """What happens to that world."""
    chance = Chance(seed)
    chance.random.seed(f"script {seed}")
    makes, weights = zip(*MAKES, strict=True)
    found: list[Deed] = []
    for _ in range(chance.random.randint(DEEDS_MIN, DEEDS_MAX)):
        time = round(chance.random.uniform(0.0, SPAN_S), 2)
        make = chance.random.choices(makes, weights)[0]
        found += [Deed(round(time + later, 2), words) for later, words in make(chance)]
    return tuple(sorted(found, key=lambda deed: deed.time))


# --- What can happen: each gives deeds, with how much later they are.


def _ask(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    verb = chance.random.choice(("start", "start", "stop", "shutdown", "reboot", "pause", "resume"))
    yield 0.0, (verb, chance.vm())


def _create(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    chance.made += 1
    yield 0.0, ("create", f"w{chance.made}", f"memory={chance.random.choice((512, 1024))}")


def _delete(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("delete", chance.vm())


def _move(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    verb = chance.random.choice(("migrate", "migrate", "move", "unmigrate"))
    there = (chance.node(),) if verb != "unmigrate" and chance.random.random() < 0.6 else ()
    yield 0.0, (verb, chance.vm(), *there)


def _slow_move(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """A move that takes so long that other things fall into it."""
    vm = chance.vm()
    yield 0.0, ("copying", vm, f"{chance.seconds(1, 30):g}")
    yield 0.1, (chance.random.choice(("migrate", "move")), vm)
    if chance.random.random() < 0.3:
        yield chance.seconds(0.2, 30), ("cancel", vm)


def _hard_move(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    vm = chance.vm()
    match chance.random.randrange(6):
        case 0:
            yield 0.0, ("busy", vm, chance.random.choice(("300", "450", "throttle", "never")))
        case 1:
            yield 0.0, ("move-fails", vm)
            yield chance.seconds(5, 60), ("move-fails", vm, "ok")
        case 2:
            node = chance.node()
            yield 0.0, ("refuses", node, vm)
            yield chance.seconds(5, 60), ("refuses", node, vm, "no")
        case 3:
            node = chance.node()
            yield 0.0, ("cut-wire", node)
            yield chance.seconds(1, 60), ("heal-wire", node)
        case _:
            yield chance.seconds(0.3, 9), (chance.random.choice(("interrupt", "tear")), vm)
    yield 0.1, ("copying", vm, f"{chance.seconds(1, 20):g}")
    yield 0.2, ("migrate", vm)


def _late_feed(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """A node is cut off, and its guard stands still between its look at the clock and the feed."""
    node, when = chance.node(), chance.random.choice(("before", "after"))
    seconds = f"{chance.random.uniform(0.5, 3.5):.2f}"
    yield 0.0, ("cut", node)
    yield chance.random.uniform(0.0, 4.0), ("freeze-when", node, "compute", when, "feed", seconds)
    yield chance.seconds(4, 40), ("heal", node)


def _failing_move(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Something happens to one of the two nodes of a move, or to both."""
    vm, copying = chance.vm(), chance.seconds(0.5, 10)
    yield 0.0, ("copying", vm, f"{copying:g}")
    yield 0.1, ("migrate", vm)
    for _ in range(chance.random.choice((1, 1, 2))):
        node = chance.random.choice((f"@source:{vm}", f"@target:{vm}"))
        when = 0.1 + chance.random.uniform(0.0, copying + 1.0)
        fault = chance.random.choice(("cut", "power-cut", "kill", "freeze", "mains-off", "reset"))
        yield when, (fault, node, *((f"{chance.seconds(2, 30):g}",) if fault == "freeze" else ()))
    for node in chance.nodes:
        yield copying + chance.seconds(10, 60), ("heal", node)
        yield copying + chance.seconds(10, 60), ("power-on", node, "5")


def _start_race(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """An agent stands still on the way to a start, and meanwhile users change their minds."""
    vm = chance.vm()
    verb = chance.random.choice(("define", "start", "commit"))
    yield 0.0, ("stop", vm)
    yield 3.0, ("freeze-when", f"@source:{vm}", "compute", "before", verb, "25")
    yield 3.1, ("start", vm)
    yield 3.1 + chance.seconds(0.5, 6), ("stop", vm)
    yield 6.0 + chance.seconds(0.5, 6), ("move", vm)
    yield 9.0 + chance.seconds(0.5, 9), ("start", vm)


def _drain(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Mostly they are made ready again before it is over."""
    node = chance.node()
    yield 0.0, ("drain", node, *chance.random.choice(((), (), ("shutdown",))))
    if chance.random.random() < 0.8:
        leave = chance.random.choice(((), (), ("leave",)))
        yield chance.seconds(1, 120), ("ready", node, *leave)


def _maintenance(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    field = chance.random.choice(("maintenance", "ha_disarmed"))
    yield 0.0, ("set", field, "1")
    yield chance.seconds(1, 90), ("set", field, "0")


def _lead(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("lead", *chance.random.choice(((), ("away",))), chance.node())


def _confirm(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """A machine whose death an administrator sees."""
    node = chance.node()
    yield 0.0, ("power-cut", node)
    yield chance.seconds(3, 40), ("confirm-dead", node)
    yield 45 + chance.seconds(1, 60), ("power-on", node, f"{chance.seconds(3, 40):g}")


def _restart(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    meant = chance.random.choice(((), (chance.service(),)))
    yield 0.0, ("restart", chance.node(), *meant, f"{chance.seconds(0.5, 90):g}")


def _power(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    node = chance.node()
    yield 0.0, (chance.random.choice(("power-cut", "mains-off")), node)
    yield chance.seconds(1, 120), ("power-on", node, f"{chance.seconds(3, 40):g}")


def _on_again(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Somebody switches a machine on that may have been fenced."""
    behind = (f"{chance.seconds(1, 80):g}",) if chance.random.random() < 0.3 else ()
    yield 0.0, ("power-on", chance.node(), f"{chance.seconds(3, 40):g}", *behind)


def _bmc(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    node = chance.node()
    how = chance.random.choice(("dead", "dead", "lying", "stuck", "refuses", "slow"))
    slow = (f"{chance.seconds(0.2, 5):g}",) if how == "slow" else ()
    yield 0.0, ("bmc", node, how, *slow)
    yield chance.seconds(5, 120), ("bmc", node, "ok")


def _cut_bmc(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    pair = (chance.node(), chance.node())
    yield 0.0, ("cut-bmc", *pair)
    yield chance.seconds(5, 90), ("heal-bmc", *pair)


def _reset(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("reset", chance.node())


def _blackout(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    """All machines lose their power, and come back one after the other."""
    for node in chance.nodes:
        yield chance.seconds(0, 1), ("power-cut", node)
        yield 2 + chance.seconds(1, 60), ("power-on", node, f"{chance.seconds(3, 40):g}")


def _kill(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("kill", chance.node(), chance.service())


def _kill_at(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    gates = 1 + int(chance.random.random() ** 2 * 30)
    yield 0.0, ("kill-at", chance.node(), chance.service(), str(gates))


def _freeze(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    seconds = f"{chance.seconds(1, 40):g}"
    meant = chance.random.choice(((), (chance.service(),)))
    yield 0.0, ("freeze", chance.node(), *meant, seconds)


def _freeze_at(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    gates = 1 + int(chance.random.random() ** 2 * 30)
    seconds = f"{chance.seconds(1, 40):g}"
    yield 0.0, ("freeze-at", chance.node(), chance.service(), str(gates), seconds)


def _cut(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    node = chance.node()
    meant = chance.random.choice(((), (chance.service(),)))
    yield 0.0, ("cut", node, *meant)
    yield chance.seconds(1, 60), ("heal", node, *meant)


def _late(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    node, service = chance.node(), chance.service()
    yield 0.0, ("late", node, service, f"{chance.seconds(0.1, 8):g}")
    yield chance.seconds(5, 60), ("late", node, service, "0")


def _behind(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("restart-behind", chance.node(), chance.service(), f"{chance.seconds(0.5, 20):g}")


def _expire(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("expire", chance.node(), chance.service())


def _lose_answer(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    commits, cut_s = str(chance.random.randint(1, 4)), f"{chance.seconds(0.5, 20):g}"
    yield 0.0, ("lose-answer", chance.node(), chance.service(), commits, cut_s)


def _store_down(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("store-down", f"{chance.seconds(0.3, 12):g}")


def _skew(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("skew", chance.node(), f"{chance.random.uniform(-300, 300):.1f}")


def _libvirt(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    node = chance.node()
    yield 0.0, ("libvirt", node, "away")
    yield chance.seconds(1, 40), ("libvirt", node, "back")


def _hang(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    node, vm = chance.node(), chance.vm()
    kind = chance.random.choice(("hang", "hang-late"))
    yield 0.0, (kind, node, vm, chance.random.choice(VM_VERBS))
    yield chance.seconds(5, 60), ("unhang", node, vm)


def _start_fails(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    yield 0.0, ("start-fails", chance.node(), chance.vm(), str(chance.random.randint(1, 4)))


def _guest(chance: Chance) -> Iterator[tuple[float, tuple[str, ...]]]:
    deed = chance.random.choice(
        ("guest-crash", "guest-crash", "guest-off", "guest-halts", "vanish")
    )
    yield 0.0, (deed, chance.vm())


MAKES: tuple[tuple[Make, float], ...] = (
    (_ask, 6.0),
    (_create, 1.5),
    (_delete, 0.7),
    (_move, 5.0),
    (_slow_move, 3.0),
    (_hard_move, 3.0),
    (_late_feed, 1.0),
    (_failing_move, 2.0),
    (_start_race, 0.7),
    (_drain, 2.0),
    (_maintenance, 0.6),
    (_lead, 1.0),
    (_confirm, 2.0),
    (_restart, 2.0),
    (_power, 2.5),
    (_reset, 1.0),
    (_on_again, 3.0),
    (_bmc, 1.5),
    (_cut_bmc, 0.7),
    (_blackout, 0.3),
    (_kill, 1.5),
    (_kill_at, 3.0),
    (_freeze, 2.0),
    (_freeze_at, 3.0),
    (_cut, 3.0),
    (_late, 1.5),
    (_behind, 1.5),
    (_expire, 1.5),
    (_lose_answer, 1.5),
    (_store_down, 1.0),
    (_skew, 0.5),
    (_libvirt, 1.0),
    (_hang, 1.5),
    (_start_fails, 1.0),
    (_guest, 2.0),
)
