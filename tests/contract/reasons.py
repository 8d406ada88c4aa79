"""For every Reason a way to come by it through the client, what field is named, and what the
message tells to do next. The fakes misbehave where it takes that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from pvc_client import Cluster
from services.mesh.errors import PvcError
from services.storage.drivers.fake import Fault
from tests.contract.stage import WAIT_S, Stage
from tests.contract.whole import MIB

LEAVE = vm_pb2.CrashPolicy(action=vm_pb2.CRASH_ACTION_LEAVE)


@dataclass(frozen=True, slots=True)
class Provoked:
    """by: asks for it, and raises it. field: of the request. next: what the message says about
    going on, a regular expression."""

    by: Callable[[Stage], Any]
    next: str
    field: str = ""


def dangling(on: Stage) -> None:
    disk = vm_pb2.DiskSpec(id="data", volume="pools/local/volumes/nowhere")
    on.cluster.vms.create(on.fresh("vm"), vm_pb2.VmSpec(disks=[disk]))


def existing(on: Stage) -> None:
    on.cluster.vms.create(on.vm(), vm_pb2.VmSpec())


def reused(on: Stage) -> None:
    request_id = on.fresh("request")
    for _ in range(2):
        on.cluster.vms.create(on.fresh("vm"), vm_pb2.VmSpec(), request_id=request_id)


def in_use(on: Stage) -> None:
    vm = on.cluster.vms.get(on.vm_with_disk())
    on.cluster.volumes.delete(vm.spec.disks[0].volume)


def immutable(on: Stage) -> None:
    vm = on.cluster.vms.get(on.vm())
    vm.meta.etag, vm.spec.uuid = "", "00000000-0000-4000-8000-000000000000"
    on.cluster.vms.update(vm, ("spec.uuid",))


def not_supported(on: Stage) -> None:
    volume = on.volume(size_bytes=2 * MIB, format=storage_pb2.IMAGE_FORMAT_RAW)
    on.cluster.volumes.snapshots.create(f"{volume}/snapshots/one")


def homeless(on: Stage) -> None:
    spec = vm_pb2.VmSpec(memory=vm_pb2.MemorySpec(memory_mib=16_777_216))
    on.cluster.vms.create(on.fresh("vm"), spec, start=True).result(WAIT_S)


def out_of_space(on: Stage) -> None:
    spec = storage_pb2.VolumeSpec(size_bytes=1 << 42)
    on.cluster.volumes.create(f"local/{on.fresh('volume')}", spec).result(WAIT_S)


def busy(on: Stage) -> None:
    vm_id = on.vm(on=True)
    with on.cluster.vms.console(vm_id) as first:
        first.write(b"x")
        first.read()
        with on.cluster.vms.console(vm_id) as second:
            second.read()


def superseded(on: Stage) -> None:
    vm_id = on.vm(on=True)
    on.whole.hypervisor.script(vm_id).ignores_acpi = True
    rebooting = on.cluster.vms.reboot(vm_id)
    on.cluster.vms.stop(vm_id)
    rebooting.result(WAIT_S)


def cancelled(on: Stage) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_task: Any) -> None:
        begun.set()
        assert go_on.wait(WAIT_S)

    on.whole.builder.fault = wait
    building = on.cluster.images.build(on.fresh("image"), pool="local", recipe_id="debian-12")
    assert begun.wait(WAIT_S)
    building.cancel()
    go_on.set()
    building.result(WAIT_S)


def interrupted(on: Stage) -> None:
    def lose(verb: str) -> None:
        if verb == "create":
            on.whole.store.lose_session()  # type: ignore[attr-defined]

    on.whole.disks.before_call = lose
    on.volume()


def deadline(on: Stage) -> None:
    vm_id = on.vm(on=True)
    on.whole.hypervisor.script(vm_id).hangs = {"reset"}
    on.cluster.vms.reset(vm_id).result(WAIT_S)


def hypervisor_failed(on: Stage) -> None:
    vm_id = on.vm(crash_policy=LEAVE)
    on.whole.hypervisor.script(vm_id).start_fails = "no such machine type"
    on.cluster.vms.start(vm_id).result(WAIT_S)


def crashed(on: Stage) -> None:
    """It has ended already when it is to be rebooted, and nobody saw it yet."""
    vm_id = on.vm(on=True, crash_policy=LEAVE)
    with on.whole.hypervisor.held:
        on.whole.hypervisor.crash(vm_id)
        rebooting = on.cluster.vms.reboot(vm_id)
    rebooting.result(WAIT_S)


def storage_failed(on: Stage) -> None:
    on.whole.disks.faults["create"] = [Fault.FAIL]
    on.volume()


def network_failed(on: Stage) -> None:
    on.whole.fabric.script.fails["put_bridge"] = 1
    on.network()


def build_failed(on: Stage) -> None:
    def fail(_task: Any) -> None:
        raise PvcError(reason_pb2.REASON_BUILD_FAILED, "mmdebstrap: no such suite; name another")

    on.whole.builder.fault = fail
    on.image()


def mistake(on: Stage) -> None:
    def fail(_task: Any) -> None:
        raise ValueError("as a mistake would")

    on.whole.builder.fault = fail
    on.image()


def unresponsive(on: Stage) -> None:
    vm_id = on.vm_with_disk(on=True)
    on.whole.hypervisor.script(vm_id).refuses_detach = True
    on.cluster.vms.detach_disk(vm_id, "data").result(WAIT_S)


def too_old(on: Stage) -> None:
    on.whole.store._cluster.mirror._commits.clear()  # type: ignore[attr-defined]
    next(on.cluster.vms.watch(from_revision=1))


def store_away(on: Stage) -> None:
    with on.whole.client() as cluster:
        on.whole.store._closed = True  # type: ignore[attr-defined]
        try:
            cluster.vms.create(on.fresh("vm"), vm_pb2.VmSpec())
        finally:
            on.whole.store._closed = False  # type: ignore[attr-defined]


def unreachable(on: Stage) -> None:
    with on.whole.client() as cluster:
        address = on.whole.peers._own.pop("compute")
        try:
            cluster.vms.get("any")
        finally:
            on.whole.peers._own["compute"] = address


def nobody(on: Stage) -> None:
    with Cluster(f"127.0.0.1:{on.whole.doors.grpc_port}", token="pvc_none") as cluster:
        cluster.vms.get("any")


def viewer(on: Stage) -> None:
    with on.whole.client("ann") as cluster:
        cluster.networks.create("mine", network_pb2.NetworkSpec())


def large(on: Stage) -> None:
    labels = {f"{n}-{'k' * 250}": "v" * 250 for n in range(60_000)}
    on.cluster.vms.create(on.fresh("vm"), vm_pb2.VmSpec(), labels=labels)


PROVOKED: Mapping[str, Provoked] = {
    "INVALID_FIELD": Provoked(
        lambda on: on.cluster.vms.create("Web!", vm_pb2.VmSpec()), "must be lower-case", "vm_id"
    ),
    "INVALID_QUERY": Provoked(
        lambda on: list(on.cluster.vms.list(filter="spec.memry = 1")), "did you mean|has", "filter"
    ),
    "INVALID_CONTENT": Provoked(lambda on: on.cluster.vms.import_xml("<domain"), "no XML", "xml"),
    "NOT_FOUND": Provoked(lambda on: on.cluster.vms.get("nowhere"), "vms/nowhere", "name"),
    "ALREADY_EXISTS": Provoked(existing, "another|choose", "vm_id"),
    "DANGLING_REFERENCE": Provoked(
        dangling, "create|make|does not exist", "vm.spec.disks[0].volume"
    ),
    "ETAG_MISMATCH": Provoked(
        lambda on: on.cluster.vms.delete(on.vm(), etag="1"), "read it again", "etag"
    ),
    "REQUEST_ID_REUSED": Provoked(reused, "use a new one", "request_id"),
    "WRONG_STATE": Provoked(lambda on: on.cluster.vms.pause(on.vm()), "start|must", "name"),
    "IN_USE": Provoked(in_use, "detach|first", "name"),
    "IMMUTABLE_FIELD": Provoked(immutable, "leave it", "vm.spec.uuid"),
    "NOT_SUPPORTED": Provoked(not_supported, "qcow2", "parent"),
    "NO_NODE_FITS": Provoked(homeless, r"n1 has .* starts as soon as one does; 'pvc vm stop"),
    "OUT_OF_SPACE": Provoked(out_of_space, "could never be filled|delete"),
    "BUSY": Provoked(busy, "by force"),
    "SUPERSEDED": Provoked(superseded, r"vms/.* is to be OFF by now"),
    "CANCELLED": Provoked(cancelled, "cancelled|request"),
    "INTERRUPTED": Provoked(interrupted, "nothing remains, ask again|given up"),
    "DEADLINE": Provoked(deadline, "did not answer"),
    "HYPERVISOR_FAILED": Provoked(hypervisor_failed, "no such machine type"),
    "STORAGE_FAILED": Provoked(storage_failed, "create failed"),
    "NETWORK_FAILED": Provoked(network_failed, "is tried again; change or delete it"),
    "BUILD_FAILED": Provoked(build_failed, "name another"),
    "GUEST_UNRESPONSIVE": Provoked(unresponsive, "until its next start"),
    "VM_CRASHED": Provoked(crashed, "'pvc vm start vm-.*' tries again"),
    "REVISION_TOO_OLD": Provoked(too_old, "begin again without a revision"),
    "STORE_UNAVAILABLE": Provoked(store_away, "nothing was written"),
    "UNREACHABLE": Provoked(unreachable, r"is it running and has it joined the cluster\?"),
    "UNAUTHENTICATED": Provoked(nobody, "token"),
    "PERMISSION_DENIED": Provoked(viewer, "operator"),
    "POWER_FAILED": Provoked(
        lambda on: on.cluster.nodes.check_power(on.controlled_node(dead=True)), "no answer within"
    ),
    "TOO_LARGE": Provoked(large, "larger than"),
    "INTERNAL": Provoked(mistake, "failed: as a mistake would"),
}

ELSEWHERE: Mapping[str, str] = {
    "INVALID_CONFIG": "tests/mesh/test_config.py",
    "MIGRATION_FAILED": "tests/coordinator/test_moves.py",
    "RATE_LIMITED": "tests/gateway/test_limits.py",
    "AUDIT_FAILED": "tests/gateway/test_hanging_disk.py",
    "NOT_LEADER": "tests/state/test_store.py",
    "SCHEMA_TOO_NEW": "tests/state/test_schema.py",
}
"""Reasons that no call of the API comes by, and where they are provoked instead: a process does not
start with such a file, such a state; who led is not who asked; one node alone moves nothing, and
this gateway lets as many tries in as a test needs."""
