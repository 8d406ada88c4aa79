"""The commands of `lab/pvc-lab`. They speak to the chassis and to the nodes' first processes, and
decide nothing themselves."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import click

from lab.cluster import founding, inside, life, orders
from lab.cluster.site import Lab, LabError, Node

SERVICES = ("compute", "storage", "network", "provisioner", "coordinator", "gateway", "zookeeper")
_ANYTHING = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What follows is another program's."""
service_argument = click.argument("service", type=click.Choice(SERVICES))


class _Node(click.ParamType[Node]):
    name = "node"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Node:
        """n1 → the node."""
        try:
            return value if isinstance(value, Node) else Lab.chosen().node(str(value))
        except LabError as error:
            self.fail(str(error))


node_argument = click.argument("node", type=_Node())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """A real cluster of three nodes on this machine."""


@lab.command()
def up() -> None:
    """Start the lab: nodes, cluster, all services. Does what is left to do."""
    this, began = Lab.chosen(), time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {text}")

    life.switch_on(this)
    say(f"{this.size} nodes have power")
    founding.found(this, say)
    click.echo(_how_to_go_on(this))


@lab.command()
def down() -> None:
    """End the lab and remove everything, the nodes' disks too."""
    this = Lab.chosen()
    life.take_down(this)
    if left := life.left_over(this):
        raise LabError(f"still there: {', '.join(left)}")
    click.echo("the lab is gone")


@lab.command()
def status() -> None:
    """Show the nodes: power, link, services."""
    this = Lab.chosen()
    for name, seen in orders.chassis(this, "status").items():
        node = this.node(name)
        power = "paused" if seen["paused"] else "on" if seen["on"] else "off"
        link = "cut" if seen["cut"] else "up"
        notes = (
            _running(node, seen),
            f"controller: {seen['bmc']}" if seen["bmc"] else "",
            "watchdog armed" if seen["watchdog"] else "",
            f"reset by it {seen['resets']} times" if seen["resets"] else "",
        )
        told = "; ".join(note for note in notes if note)
        click.echo(f"{name}  {node.address}  power {power:<7} link {link:<4} {told}")


@lab.command("exec", add_help_option=False, context_settings=_ANYTHING)
@node_argument
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(node: Node, words: tuple[str, ...]) -> None:
    """Run a program inside a node."""
    inside.become(node, words)


@lab.command()
@node_argument
def shell(node: Node) -> None:
    """Open a shell inside a node."""
    inside.become(node, ["bash", "-i"])


@lab.command(add_help_option=False, context_settings=_ANYTHING)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def pvc(words: tuple[str, ...]) -> None:
    """Run `pvc` inside the first node that works."""
    inside.become(_working(Lab.chosen()), ["pvc", *words])


def _order(verb: str, says: str, help: str) -> None:
    """Adds a command that has the chassis do one thing to one node."""

    @lab.command(verb, help=help)
    @node_argument
    def command(node: Node) -> None:
        orders.chassis(node.lab, verb, [node.name])
        click.echo(f"{node.name} {says}")


_order("on", "has power", "Give a node power: it boots.")
_order("off", "is off", "Switch a node off at once, as its controller would.")
_order("reset", "was reset", "Switch a node off and on again.")
_order("kill", "is dead", "Cut a node's power, and its controller's with it.")
_order("cut", "is cut off", "Pull a node's network cable.")
_order("heal", "is reachable", "Plug a node's network cable in again.")
_order("pause", "stands still", "Freeze everything in a node.")
_order("resume", "goes on", "Let a frozen node go on.")


@lab.command()
@node_argument
@click.argument("how", type=click.Choice(("ok", "dead", "slow", "lying", "stuck", "refuses")))
@click.argument("seconds", type=click.FloatRange(0, 3600), default=5.0)
def bmc(node: Node, how: str, seconds: float) -> None:
    """Have a node's controller misbehave: not answer, answer after SECONDS, take commands and do
    nothing, say that the power is off whatever is so, or refuse."""
    wanted: dict[str, object] = {"slow_s": seconds} if how == "slow" else {how: True}
    orders.chassis(node.lab, "bmc", [node.name], misbehaviour={} if how == "ok" else wanted)
    click.echo(f"the controller of {node.name} is {how}")


@lab.command()
@node_argument
@click.argument("service", type=click.Choice(SERVICES), required=False, default="")
def restart(node: Node, service: str) -> None:
    """Restart a service of a node in order, or all of them."""
    _renewed(node, service, "restart")


@lab.command("kill-service")
@node_argument
@service_argument
def kill_service(node: Node, service: str) -> None:
    """Kill a service of a node (SIGKILL); it is started again by itself."""
    _renewed(node, service, "kill")


@lab.command()
@node_argument
@service_argument
def stop(node: Node, service: str) -> None:
    """End a service of a node, and leave it ended."""
    orders.services(node, "stop", service)


@lab.command()
@node_argument
@service_argument
def start(node: Node, service: str) -> None:
    """Start a service of a node that was ended."""
    orders.services(node, "start", service)


@lab.command()
@node_argument
@service_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many of the last lines.")
def logs(node: Node, service: str, follow: bool, lines: int) -> None:
    """Show the log of a service of a node."""
    words = ["tail", f"--lines={lines}", *(["-F"] if follow else [])]
    os.execvp(words[0], [*words, str(node.logs / f"{service}.log")])


def _renewed(node: Node, service: str, verb: str) -> None:
    """Gives the order, and waits until each service runs as another process."""
    before = orders.services(node, "status")
    orders.services(node, verb, service)
    names = [service] if service else [name for name, one in before.items() if one["pid"]]

    def done() -> bool:
        now = orders.services(node, "status")
        return all(now[name]["pid"] not in (0, before[name]["pid"]) for name in names)

    _wait(done, 60.0, f"{node.name}: {', '.join(names)} did not come back")
    click.echo(f"{node.name}: {', '.join(names)} started again")


def _wait(done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise LabError(otherwise)
        time.sleep(0.05)


def _running(node: Node, seen: dict[str, object]) -> str:
    if not seen["on"] or seen["paused"]:
        return ""
    found = orders.services(node)
    down = [name for name, one in found.items() if not one["pid"]]
    return f"all {len(found)} services run" if not down else f"down: {', '.join(down)}"


def _working(this: Lab) -> Node:
    for name, seen in orders.chassis(this, "status").items():
        node = this.node(name)
        if seen["on"] and not seen["paused"] and not seen["cut"] and node.socket.exists():
            return node
    raise LabError("no node works: lab/pvc-lab status")


def _how_to_go_on(this: Lab) -> str:
    return f"""
The lab runs. To go on (as root):

    export PVC_CONNECTION=unix:{this.nodes[0].socket}
    .venv/bin/pvc node list
    lab/pvc-lab status
    lab/pvc-lab kill n3        # and: on, off, cut, heal, pause, resume, restart, logs …
    make lab-stop            # ends it and leaves nothing behind
"""


def main() -> None:
    """The program."""
    if os.geteuid() != 0:
        words = ["sudo", "--preserve-env=PVC_LAB", sys.executable, "-m", "lab.cluster"]
        os.execvp(words[0], [*words, *sys.argv[1:]])
    try:
        lab(prog_name="pvc-lab")
    except LabError as error:
        click.echo(f"pvc-lab: {error}", err=True)
        raise SystemExit(1) from error
