"""What the demo does, step by step, as a user's program would: only through the client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from lab.demo.guest import MARKER, USER_DATA, Answer, wait_for
from lab.demo.screen import Screen
from pvc.compute.v1 import vm_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_pb2
from pvc_client import Cluster
from pvc_client.errors import NotFound

VM = "demo"
IMAGE = "debian-12"
POOL = "local"
DATA = "demo-data"
SNAPSHOT = "first"
BUILD_TIMEOUT_S = 900.0
TIMEOUT_S = 240.0
BOOT_LINES = 4

T = TypeVar("T")


class Story:
    """The demo's steps on a cluster that runs."""

    def __init__(self, cluster: Cluster, screen: Screen) -> None:
        self._cluster = cluster
        self._screen = screen
        self._address = ""

    def tell(self) -> None:
        """Everything, from the node to the reboot."""
        self._node()
        self._image()
        self._vm()
        answer = self._answer()
        answer = self._hot_plug(answer)
        self._snapshot()
        self._reboot(answer)

    def _node(self) -> None:
        self._screen.say("cluster", f"{self._cluster.status().name}: one node, all services")
        (node,) = self._cluster.nodes.list()
        facts = node.status
        self._screen.say(
            "node",
            f"{node.name.removeprefix('nodes/')}: {facts.cpus} CPUs, {facts.memory_mib} MiB, "
            f"QEMU {facts.emulator_version}, libvirt {facts.libvirt_version}",
        )
        self._screen.say("", f"VMs run with {facts.accelerator.upper()}: {facts.accelerator_why}")

    def _image(self) -> None:
        image = found(lambda: self._cluster.images.get(IMAGE))
        if image is None:
            self._screen.say("image", f"building {IMAGE} from Debian's packages by its recipe")
            building = self._cluster.images.build(IMAGE, pool=POOL, recipe_id=IMAGE)
            image = building.result(BUILD_TIMEOUT_S, self._screen.progress)
        size_mib = image.status.size_bytes >> 20
        self._screen.say("image", f"{IMAGE}: {size_mib} MiB, {image.status.origin}")

    def _vm(self) -> None:
        """The VM, made from the image; a VM of an earlier demo goes first."""
        if found(lambda: self._cluster.vms.get(VM)) is not None:
            self._screen.say("vm", "removing the VM of an earlier demo")
            self._cluster.vms.delete(VM, delete_volumes=True, force=True).result(TIMEOUT_S)
        if found(lambda: self._cluster.volumes.get(f"{POOL}/{DATA}")) is not None:
            self._cluster.volumes.delete(f"{POOL}/{DATA}", force=True).result(TIMEOUT_S)
        spec = vm_pb2.VmSpec(description="made by the demo", tags=["demo"])
        spec.memory.memory_mib = 768
        spec.cpu.vcpus = 2
        watching = StateWatch(self._cluster, VM, self._screen)
        begun = self._cluster.vms.provision(
            VM,
            IMAGE,
            spec=spec,
            root_size_bytes=4 << 30,
            cloud_init=image_pb2.CloudInit(user_data=USER_DATA),
            start=True,
        )
        vm = begun.result(TIMEOUT_S)
        watching.finish()
        root = self._cluster.volumes.get(f"{POOL}/{VM}-root")
        self._screen.say(
            "volume",
            f"{root.name}: {root.status.size_bytes >> 30} GiB, a copy on write of "
            f"{root.status.parent}, {root.status.allocated_bytes >> 10} KiB taken",
        )
        self._screen.say("vm", f"{VM} runs on {vm.status.node.removeprefix('nodes/')}")
        self._screen.say("console", "the guest's first lines on its serial console:")
        self._screen.quote(boot_lines(self._cluster, VM, BOOT_LINES))

    def _answer(self) -> Answer:
        guest = self._guest()
        self._address = address = guest.addresses[0].partition("/")[0]
        self._screen.say(
            "agent", f"the guest is {guest.host_name}, {guest.os}, at {', '.join(guest.addresses)}"
        )
        answer = wait_for(self._namespace(), address, TIMEOUT_S)
        assert answer.marker == MARKER, f"the guest answered {answer.marker}"
        self._screen.say("network", f"http://{address}/cgi-bin/state answers:")
        self._screen.quote(answer.lines)
        return answer

    def _hot_plug(self, before: Answer) -> Answer:
        spec = storage_pb2.VolumeSpec(size_bytes=1 << 30)
        self._cluster.volumes.create(f"{POOL}/{DATA}", spec).result(TIMEOUT_S)
        disk = vm_pb2.DiskSpec(id="data", volume=f"pools/{POOL}/volumes/{DATA}")
        self._cluster.vms.attach_disk(VM, disk).result(TIMEOUT_S)
        answer = wait_for(self._namespace(), self._address, TIMEOUT_S)
        new = sorted(set(answer.disks) - set(before.disks))
        assert new, f"the guest sees {answer.disks} as before"
        self._screen.say("hot-plug", f"a 1 GiB disk; the running guest sees it as {', '.join(new)}")
        return answer

    def _snapshot(self) -> None:
        snapshot = self._cluster.vms.snapshots.create(f"{VM}/{SNAPSHOT}").result(TIMEOUT_S)
        how = "file systems frozen for the moment" if snapshot.quiesced else "as of a power cut"
        count = len(snapshot.volume_snapshots)
        self._screen.say("snapshot", f"{SNAPSHOT}: {count} volumes at one moment, {how}")

    def _reboot(self, before: Answer) -> None:
        self._cluster.vms.reboot(VM).result(TIMEOUT_S)
        answer = wait_for(self._namespace(), self._address, TIMEOUT_S, not_boot=before.boot)
        self._screen.say("reboot", f"done; the guest answers again with marker {answer.marker}")

    def _guest(self) -> vm_pb2.GuestStatus:
        """What the guest's agent says, once it says anything."""
        watch = self._cluster.vms.watch(filter=f'name = "vms/{VM}"')
        timer = threading.Timer(TIMEOUT_S, watch.close)
        timer.start()
        try:
            for change in watch:
                if change.resource is not None and change.resource.status.guest.addresses:
                    return change.resource.status.guest
        finally:
            timer.cancel()
            watch.close()
        raise TimeoutError(f"the guest's agent said nothing in {TIMEOUT_S:.0f} s")

    def _namespace(self) -> str:
        return self._cluster.networks.get("default").status.namespace


class StateWatch:
    """Shows every state that a VM goes through, while something else waits for the last."""

    def __init__(self, cluster: Cluster, vm: str, screen: Screen) -> None:
        self._changes = cluster.vms.watch(filter=f'name = "vms/{vm}"')
        self._screen = screen
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Until it was seen running, for a moment at most."""
        self._running.wait(5.0)
        self._changes.close()
        self._thread.join(5.0)

    def _follow(self) -> None:
        seen = vm_pb2.VM_STATE_UNSPECIFIED
        for change in self._changes:
            if change.resource is None:
                continue
            state, why = change.resource.status.state, change.resource.status.why
            if state != seen and state != vm_pb2.VM_STATE_UNSPECIFIED:
                name = vm_pb2.VmState.Name(state).removeprefix("VM_STATE_")
                self._screen.say("vm", f"{name}{f' ({why})' if why else ''}")
            if state == vm_pb2.VM_STATE_RUNNING:
                self._running.set()
                return
            seen = state


def found(get: Callable[[], T]) -> T | None:
    """What there is, or None."""
    try:
        return get()
    except NotFound:
        return None


def boot_lines(cluster: Cluster, vm: str, count: int) -> Iterator[str]:
    """The first printable lines of the guest on its console."""
    text = b""
    for piece in cluster.vms.console_log(vm, follow=True):
        text += piece
        lines = [line.strip() for line in text.decode(errors="replace").splitlines()[:-1]]
        readable = [line for line in lines if line.isprintable() and len(line) > 8]
        if len(readable) >= count:
            yield from readable[:count]
            return
