"""One invocation of every command that asks the cluster, with which it does what it is there for. A
command without one fails the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.drivers.fake import FakeController
from tests.contract.stage import Stage, wait_until
from tests.provisioner.worlds import qcow2

Make = Callable[[Stage, Path], Sequence[str]]
"""Sets the stage, and gives the words after the command's own; files in the folder."""
HELD_S = 0.4
UNKNOWN = cluster_pb2.NODE_STATE_UNKNOWN
XML = (
    "<domain type='kvm'><name>{}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64'>hvm</type></os></domain>"
)


def short(name: str) -> str:
    """The ids of a name."""
    return "/".join(name.split("/")[1::2])


def _vm(*words: str, on: bool = False) -> Make:
    return lambda stage, _: [stage.vm(on=on), *words]


def _said(*words: str) -> Make:
    return lambda stage, _: words


def _of(kind: str, *words: str) -> Make:
    return lambda stage, _: [short(getattr(stage, kind)()), *words]


def _in_words(kind: str, *words: str) -> Make:
    """A snapshot's volume or VM, and its own id."""

    def made(stage: Stage, _: Path) -> list[str]:
        outer, _, own = short(getattr(stage, kind)()).rpartition("/")
        return [outer, own, *words]

    return made


def _file(stage: Stage, folder: Path, text: str) -> str:
    path = folder / f"{stage.fresh('file')}.yaml"
    path.write_text(text)
    return str(path)


def _disk_file(stage: Stage, folder: Path) -> str:
    path = folder / f"{stage.fresh('disk')}.qcow2"
    path.write_bytes(qcow2())
    return str(path)


def _applied(stage: Stage, folder: Path) -> list[str]:
    """Everything that can be made, and everything that can be changed, in one file."""
    vm, pool, token = stage.vm(), stage.pool(), stage.token()
    network = stage.network()
    node = short(stage.node(cluster_pb2.NODE_STATE_DRAINED))
    fresh = [stage.fresh(one) for one in ("vm", "pool", "net", "vol", "snap")]
    docs = [
        f"name: vms/{fresh[0]}\nspec: {{}}",
        f"name: pools/{fresh[1]}\nspec: {{node: nodes/n1, directory: {{path: /{fresh[1]}}}}}",
        f"name: networks/{fresh[2]}\nspec: {{}}",
        f"name: pools/local/volumes/{fresh[3]}\nspec: {{size_bytes: 2097152}}",
        f"name: pools/local/volumes/{fresh[3]}/snapshots/{fresh[4]}",
        *(f"name: {one}\nspec: {{description: changed}}"
          for one in (f"vms/{vm}", pool, network, f"nodes/{node}")),
        f"name: {token}\ndescription: changed",
    ]  # fmt: skip
    return ["-f", _file(stage, folder, "\n---\n".join(docs))]


def _differing(stage: Stage, folder: Path) -> list[str]:
    names = [f"vms/{stage.vm()}", stage.pool(), stage.network(), stage.volume(), stage.node()]
    return ["-f", _file(stage, folder, "\n---\n".join(f"name: {name}" for name in names))]


def _elsewhere(stage: Stage, _: Path) -> list[str]:
    """A VM that is off, and a node that it is not on."""
    vm = stage.small_vm()
    there = stage.cluster.vms.get(vm).decision.node
    return [short(vm), "--node", "n1" if there != "nodes/n1" else short(stage._small_node)]


def _began(stage: Stage, _: Path) -> list[str]:
    return [short(stage.operation())]


def _slow(*words: str) -> Make:
    """An operation that goes on for a moment."""

    def made(stage: Stage, _: Path) -> list[str]:
        vm, held = stage.vm(), threading.Event()

        def hold() -> None:
            with stage.whole.hypervisor.held:
                held.set()
                time.sleep(HELD_S)

        threading.Thread(target=hold).start()
        assert held.wait(60)
        return [short(stage.cluster.vms.start(vm).name), *words]

    return made


def _asked_at_once(stage: Stage, _: Path) -> list[str]:
    address = f"http://{stage.fresh('bmc')}"
    stage.whole.power.controllers[address] = FakeController("s3cr3t")
    return [short(stage.node()), "--protocol", "redfish", "--address", address,
            "--password-file", "-"]  # fmt: skip


def _deleted_part(kind: str, part: str) -> Make:
    return lambda stage, _: [getattr(stage, kind)(), part, "--yes"]


def _exported(stage: Stage, folder: Path) -> list[str]:
    return [short(stage.volume()), str(folder / f"{stage.fresh('out')}.qcow2")]


def _token_of(*words: str) -> Make:
    return lambda stage, _: [short(stage.token()), *words]


def _audited(stage: Stage, _: Path) -> list[str]:
    """An entry of the audit log: somebody just made a VM."""
    stage.vm()
    found: list[str] = []

    def written() -> bool:
        found[:] = [row.name for row in stage.cluster.audit.list()]
        return bool(found)

    wait_until(written)
    return [short(found[-1])]


INVOCATIONS: Mapping[str, Make] = {
    "apply": _applied,
    "vm apply": _applied,
    "audit info": _audited,
    "audit list": _said(),
    "cluster fault list": _said(),
    "cluster ha": _said("arm"),
    "cluster maintenance": _said("off"),
    "cluster set": _said("--migrations-per-node", "3"),
    "cluster settings": _said(),
    "cluster status": _said(),
    "cluster task": _said(),
    "diff": _differing,
    "event list": _said(),
    "image build": lambda stage, _: [stage.fresh("image"), "--recipe", "debian-12"],
    "image import": lambda stage, folder: [_disk_file(stage, folder), stage.fresh("image")],
    "image info": _of("image"),
    "image list": _said(),
    "image recipes": _said(),
    "image remove": _of("image", "--yes"),
    "image wait": _of("image", "state=ready"),
    "network create": lambda stage, _: [stage.fresh("net"), "--ipnet", stage.subnet()],
    "network delete": _of("network", "--yes"),
    "network dhcp list": _said("default"),
    "network edit": _of("network", "--yes"),
    "network export": _said("default"),
    "network info": _said("default"),
    "network list": _said(),
    "network modify": _of("network", "--mtu", "1400"),
    "network wait": _said("default", "state=ready"),
    "node add": lambda stage, _: [stage.fresh("node"), "10.3.0.1"],
    "node bmc check": _of("controlled_node"),
    "node bmc clear": _of("controlled_node"),
    "node bmc set": lambda stage, _: [
        short(stage.controlled_node()), "--protocol", "redfish", "--address", "http://bmc-1",
        "--keep-password", "--no-check",
    ],
    "node confirm-dead": lambda stage, _: [
        short(stage.node(UNKNOWN)), "--why", "pulled both plugs", "--yes"
    ],
    "node demote": _of("node"),
    "node drain": _of("node"),
    "node edit": _of("node", "--yes"),
    "node export": _said("n1"),
    "node info": _said("n1"),
    "node is-primary": _said("n1"),
    "node list": _said(),
    "node log": _said("n1"),
    "node promote": _of("node"),
    "node ready": lambda stage, _: [short(stage.node(cluster_pb2.NODE_STATE_DRAINED))],
    "node remove": lambda stage, _: [short(stage.added_node().node.name), "--yes"],
    "node top": _said("--once"),
    "node update": _of("node", "--description", "changed"),
    "node wait": _said("n1", "state=online"),
    "node primary": _said("n1"),
    "operation cancel": _began,
    "operation info": _began,
    "operation list": _said("--all"),
    "operation wait": _slow(),
    "pool create": lambda stage, _: [stage.fresh("pool"), "--node", "n1", "--path",
                                     f"/{stage.fresh('path')}"],
    "pool delete": _of("pool", "--yes"),
    "pool edit": _of("pool", "--yes"),
    "pool export": _said("local"),
    "pool info": _said("local"),
    "pool list": _said(),
    "pool modify": _of("pool", "--reserve", "2G"),
    "pool wait": _said("local", "state=ready"),
    "provisioner create": lambda stage, _: [stage.fresh("vm"), short(stage.image())],
    "snapshot create": _of("volume", "before"),
    "snapshot delete": _in_words("snapshot", "--yes"),
    "snapshot info": _in_words("snapshot"),
    "snapshot list": _of("volume"),
    "snapshot rollback": _in_words("snapshot", "--yes"),
    "status": _said(),
    "storage status": _said(),
    "storage util": _said(),
    "token create": lambda stage, _: [stage.fresh("token"), "--role", "viewer"],
    "token revoke": _token_of("--yes"),
    "token update": _token_of("--description", "changed"),
    "token info": _token_of(),
    "token list": _said(),
    "top": _said("--once"),
    "version": _said(),
    "vm attach-disk": lambda stage, _: [stage.vm(), short(stage.volume())],
    "vm attach-nic": _vm("default"),
    "vm clone": lambda stage, _: [stage.vm(), stage.fresh("vm")],
    "vm create": lambda stage, _: [stage.fresh("vm"), "--vcpus", "2"],
    "vm define": lambda stage, folder: [_file(stage, folder, XML.format(stage.fresh("old")))],
    "vm delete": _vm("--yes"),
    "vm detach-disk": _deleted_part("vm_with_disk", "data"),
    "vm detach-nic": _deleted_part("vm_with_nic", "net0"),
    "vm disable": _vm(on=True),
    "vm dump": _vm(),
    "vm edit": _vm("--yes"),
    "vm explain": _vm(),
    "vm export": _vm(),
    "vm info": _vm(),
    "vm list": _said(),
    "vm log": _vm(on=True),
    "vm memory get": _vm(),
    "vm memory set": _vm("2G"),
    "vm migrate": _elsewhere,
    "vm modify": _vm("--description", "changed"),
    "vm move": _elsewhere,
    "vm network add": _vm("default"),
    "vm network get": _vm(),
    "vm network remove": _deleted_part("vm_with_nic", "default"),
    "vm pause": _vm(on=True),
    "vm reboot": _vm(on=True),
    "vm remove": _vm("--yes"),
    "vm rename": lambda stage, _: [stage.vm(), stage.fresh("vm")],
    "vm reset": _vm("--yes", on=True),
    "vm resume": lambda stage, _: [stage.paused_vm()],
    "vm shutdown": _vm(on=True),
    "vm snapshot create": lambda stage, _: [stage.vm_with_disk()],
    "vm snapshot list": _vm(),
    "vm snapshot remove": _in_words("vm_snapshot", "--yes"),
    "vm snapshot rollback": _in_words("vm_snapshot", "--yes"),
    "vm start": _vm(),
    "vm stop": _vm("--yes", on=True),
    "vm tag add": _vm("red"),
    "vm tag get": _vm(),
    "vm tag remove": lambda stage, _: [stage.vm(tags=["red"]), "red"],
    "vm unmigrate": _of("moved_vm"),
    "vm vcpu get": _vm(),
    "vm vcpu set": _vm("2"),
    "vm volume add": lambda stage, _: [stage.vm(), short(stage.volume())],
    "vm volume get": _vm(),
    "vm volume remove": _deleted_part("vm_with_disk", "data"),
    "vm wait": _vm("state=stopped"),
    "volume clone": lambda stage, _: [short(stage.volume()), f"local/{stage.fresh('copy')}"],
    "volume create": lambda stage, _: [f"local/{stage.fresh('vol')}", "2M"],
    "volume delete": _of("volume", "--yes"),
    "volume export": _exported,
    "volume import": lambda stage, folder: [
        _disk_file(stage, folder), f"local/{stage.fresh('vol')}"
    ],
    "volume info": _of("volume"),
    "volume list": _said(),
    "volume rename": lambda stage, _: [short(stage.volume()), stage.fresh("vol")],
    "volume resize": _of("volume", "8M"),
    "volume wait": _of("volume", "state=ready"),
    "wait": lambda stage, _: ["vm", stage.vm(), "state=stopped"],
    "whoami": _said(),
}  # fmt: skip
ALSO: Sequence[tuple[str, Make]] = (
    ("vm create", lambda stage, _: [stage.fresh("vm"), "--image", short(stage.image())]),
    ("vm disable", lambda stage, _: [stage.vm(on=True), "--force", "--yes"]),
    ("operation wait", _slow("--quiet")),
    ("wait", lambda stage, _: ["token", short(stage.token()), "exists"]),
    ("node bmc set", _asked_at_once),
)  # fmt: skip
"""A second way of using a command, for methods that the first does not need."""
ENDLESS = {"event watch", "vm console", "audit watch"}
"""Commands that go on until somebody ends them; each has a test of its own."""
APART = {"cluster balance", "node secondary"}
"""Commands that want nodes which would disturb others; they have tests of their own."""
MACHINE = {"cluster join"}
"""Commands for a machine that is no node yet; tests/pvcd has them."""
