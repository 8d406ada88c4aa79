"""The pure core: defaults, checks, and converge against a model of a domain that does what the
steps say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import operation_pb2
from services.compute.core import defaults, live, mask, status, steps
from services.compute.core.edits import own_volumes
from services.compute.core.life import View, at_rest, converge, start_failed
from services.compute.core.methods import method
from services.compute.core.settle import DEADLINES_S, Refusals, settle
from services.compute.drivers.hypervisor import Domain, OffReason, Power
from services.compute.drivers.observed import Observed, ObservedDisk, ObservedNic
from services.mesh import masks
from services.mesh.errors import PvcError

NODE = "nodes/n1"
STATES = [value for value in vm_pb2.VmState.values()]
POWERS = [value for value in vm_pb2.PowerState.values()]
OPTIONS = {"format": "qcow2", "cache": "none", "discard": True, "read_only": False, "boot_order": 0}


def at(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp


def disk(id: str, path: str = "/pool/a", bus: str = "scsi", device: str = "disk") -> ObservedDisk:
    return ObservedDisk(id=id, path=path, device=device, bus=bus, target="sda", **OPTIONS)  # type: ignore[arg-type]


def nic(
    id: str, bridge: str = "br0", link_down: bool = False, mac: str = "52:54:00:00:00:01"
) -> ObservedNic:
    return ObservedNic(id, mac, bridge, "virtio", 0, link_down, 0, "vnet0")


def body(**given: object) -> Observed:
    """What a domain is made of."""
    plain = Observed(
        vm="web", uid="", generation=1, uuid="u", description="", cold={"machine": "q35"},
        vcpus=1, max_vcpus=4, memory_mib=1024, max_memory_mib=2048, accelerator="tcg",
        disks={"root": disk("root")}, nics={"net0": nic("net0")}, vnc="127.0.0.1:5900",
        console="", console_log="", nvram="", agent_connected=False,
    )  # fmt: skip
    return replace(plain, **given)  # type: ignore[arg-type]


def a_vm(
    state: int = 0, power: int = 0, asked: int = 2, taken: int = 1, **status_fields: object
) -> vm_pb2.Vm:
    vm = vm_pb2.Vm(name="vms/web")
    vm.meta.generation = 1
    vm.spec.uuid, vm.spec.shutdown_timeout_s = "u", 30
    vm.spec.power = vm.decision.power = power  # type: ignore[assignment]
    vm.spec.power_request = vm.decision.power_request = asked
    vm.decision.node = NODE
    vm.status.CopyFrom(
        vm_pb2.VmStatus(state=state, power_request=taken, node=NODE, **status_fields)  # type: ignore[arg-type]
    )
    vm.status.state_time.CopyFrom(at(100))
    vm.status.start_time.CopyFrom(at(100))
    return vm


@dataclass
class Model:
    """A domain, a VM's row and a clock; steps are done to them."""

    vm: vm_pb2.Vm
    power: Power = Power.OFF
    reason: OffReason = OffReason.UNKNOWN
    defined: bool = True
    there: bool = True
    now: float = 200.0
    live: Observed | None = None
    wish: Observed | None = None
    nudged: float | None = None
    deaf: bool = False

    def view(self, **given: object) -> View:
        domain = Domain("web", "u", self.power, self.reason, "1", "") if self.defined else None
        on = self.power is not Power.OFF and self.defined
        plain = View(
            node=NODE,
            now=at(self.now),
            booted=at(1),
            domain=domain,
            live=(self.live or body()) if on else None,
            wish=self.wish or body(),
            nudged_s=None if self.nudged is None else self.now - self.nudged,
        )
        return replace(plain, **given)  # type: ignore[arg-type]

    def do(self, step: steps.Step) -> None:
        match step:
            case steps.SetStatus(after):
                if after.state != self.vm.status.state:
                    REACHED.add((self.vm.status.state, after.state))
                self.vm.status.CopyFrom(after)
            case steps.Define():
                self.defined = True
            case steps.Start() | steps.Resume():
                self.power = Power.RUNNING
            case steps.Pause():
                self.power = Power.PAUSED
            case steps.Shutdown():
                self.nudged = self.now
                if not self.deaf:
                    self.power, self.reason = Power.OFF, OffReason.SHUT_DOWN
            case steps.Destroy():
                self.power, self.reason = Power.OFF, OffReason.DESTROYED
            case steps.Undefine():
                assert self.power is Power.OFF, "a running domain cannot be undefined"
                self.defined = False
            case steps.Remove():
                self.there = False
            case _:
                self.live = self.wish
        SEEN.add(type(step))

    def settle(self, **given: object) -> None:
        """Does what converge says until it says nothing; it must come to that."""
        for _ in range(12):
            plan = converge(self.vm, self.view(**given)) if self.there else ()
            if not plan:
                return
            for step in plan:
                self.do(step)
        raise AssertionError(f"no calm: {plan}")


REACHED: set[tuple[int, int]] = set()
SEEN: set[type] = set()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("actual", Power)
@pytest.mark.parametrize("deleted", [False, True])
def test_whatever_it_is_it_becomes_what_was_decided(
    state: int, power: int, actual: Power, deleted: bool
) -> None:
    """Every state × decision × fact comes to rest, in the state that was decided, by allowed moves
    alone."""
    for reason, mine in product(OffReason, (True, False)):
        model = Model(a_vm(state, power), actual, reason)
        if not mine:
            model.vm.decision.node = "nodes/n2"
        if deleted:
            model.vm.meta.delete_time.CopyFrom(at(150))
        model.settle()
        if deleted and mine:
            assert not model.there and not model.defined
        elif not mine:
            assert not model.defined and model.vm.status.node == ""
        else:
            check_rest(model, power)


def check_rest(model: Model, power: int) -> None:
    """At rest: as decided, or waiting for the coordinator to judge an end that nobody asked for."""
    now, state = model.vm.status, vm_pb2.VmState
    if model.power is Power.STOPPING:
        return  # the guest is on its way off; what comes then is another case
    waiting = now.crashes > 0 or (now.guest_shutdown and now.power_request == 2)
    match power:
        case vm_pb2.POWER_STATE_RUNNING if not waiting:
            calling_back = now.state == vm_pb2.VM_STATE_STOPPING
            assert calling_back or (now.state, model.power) == (
                vm_pb2.VM_STATE_RUNNING,
                Power.RUNNING,
            ), state.Name(now.state)
        case vm_pb2.POWER_STATE_PAUSED if not waiting:
            calling_back = now.state == vm_pb2.VM_STATE_STOPPING
            assert calling_back or (now.state, model.power) == (
                vm_pb2.VM_STATE_PAUSED,
                Power.PAUSED,
            ), state.Name(now.state)
        case vm_pb2.POWER_STATE_RUNNING | vm_pb2.POWER_STATE_PAUSED:
            assert model.power is Power.OFF
        case _:
            assert model.power is Power.OFF and now.state == vm_pb2.VM_STATE_STOPPED
            assert now.power_request == 2


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("power", POWERS)
def test_what_is_at_rest_has_no_step_whatever_else_is_so(state: int, power: int) -> None:
    for taken, missing, booted in product((1, 2), ("", "a volume is gone"), (at(1), at(150))):
        model = Model(a_vm(state, power, taken=taken, generation=1), defined=False)
        view = model.view(missing=missing, wish=None if missing else body(), booted=booted)
        assert not at_rest(model.vm, NODE) or converge(model.vm, view) == ()
    model.settle()
    off = power not in (vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED)
    assert at_rest(model.vm, NODE) == off
    assert not at_rest(model.vm, "nodes/n2")
    model.vm.meta.delete_time.CopyFrom(at(150))
    assert not at_rest(model.vm, NODE)


def test_a_failed_start_waits_for_the_coordinator() -> None:
    model = Model(a_vm(vm_pb2.VM_STATE_STARTING, vm_pb2.POWER_STATE_RUNNING))
    model.do(start_failed(model.vm.status, "no bridge", at(200)))
    model.settle()
    assert model.vm.status.state == vm_pb2.VM_STATE_FAILED and model.vm.status.crashes == 1
    model.vm.decision.crashes_seen = 1
    model.vm.decision.not_before.CopyFrom(at(204))
    assert converge(model.vm, model.view()) == ()
    model.now = 204
    model.settle()
    assert model.vm.status.state == vm_pb2.VM_STATE_RUNNING


def test_a_start_that_is_withdrawn_ends() -> None:
    model = Model(a_vm(vm_pb2.VM_STATE_STARTING, vm_pb2.POWER_STATE_OFF))
    model.settle()
    assert model.vm.status.state == vm_pb2.VM_STATE_STOPPED


def test_a_shutdown_that_is_called_back_is_let_finish() -> None:
    model = Model(
        a_vm(vm_pb2.VM_STATE_STOPPING, vm_pb2.POWER_STATE_RUNNING), Power.RUNNING, now=110
    )
    assert converge(model.vm, model.view()) == ()
    model.now = 131
    model.settle()
    assert model.vm.status.state == vm_pb2.VM_STATE_RUNNING


LIVE_CASES: list[tuple[Observed, Observed, list[type], list[str]]] = [
    (body(), body(), [], []),
    (body(), body(cold={"machine": "pc"}), [], ["machine"]),
    (body(), body(vcpus=2), [steps.SetVcpus], []),
    (body(), body(vcpus=8), [], ["cpu.vcpus"]),
    (body(), body(memory_mib=2048), [steps.SetMemory], []),
    (body(), body(memory_mib=4096), [], ["memory.memory_mib"]),
    (body(), body(disks={"root": disk("root"), "d": disk("d")}), [steps.Attach], []),
    (body(), body(disks={}), [steps.Detach], []),
    (body(), body(disks={"root": disk("root", "/pool/b")}), [steps.Detach], []),
    (body(), body(disks={"root": disk("root", bus="sata")}), [], ["disks.root"]),
    (body(disks={"s": disk("s", bus="sata")}), body(disks={}), [], ["disks.s"]),
    (
        body(disks={"cd": disk("cd", "", "sata", "cdrom")}),
        body(disks={"cd": disk("cd", "/iso", "sata", "cdrom")}),
        [steps.UpdateDevice],
        [],
    ),
    (body(), body(nics={}), [steps.Detach], []),
    (body(nics={}), body(), [steps.Attach], []),
    (body(), body(nics={"net0": nic("net0", "br1")}), [steps.UpdateDevice], []),
    (body(), body(nics={"net0": nic("net0", link_down=True)}), [steps.UpdateDevice], []),
    (body(), body(nics={"net0": nic("net0", mac="52:54:00:00:00:02")}), [], ["nics.net0"]),
]


@pytest.mark.parametrize(("live_body", "wish", "wanted", "pending"), LIVE_CASES)
def test_what_changes_live_and_what_waits(
    live_body: Observed, wish: Observed, wanted: list[type], pending: list[str]
) -> None:
    found = live.difference(live_body, wish, {})
    assert [type(step) for step in found.steps] == wanted and list(found.pending) == pending
    vm = a_vm(vm_pb2.VM_STATE_RUNNING, vm_pb2.POWER_STATE_RUNNING)
    model = Model(vm, Power.RUNNING, live=live_body, wish=wish)
    model.settle()
    assert list(model.vm.status.pending_restart) == ([] if wanted else pending)


def test_what_was_refused_is_not_asked_again_in_the_same_run() -> None:
    wish = body(disks={})
    step = live.difference(body(), wish, {}).steps[0]
    tried = {steps.key(step): live.signature(step, wish)}
    assert live.difference(body(), wish, tried, {"disks.root"}).pending == ("disks.root",)
    assert live.difference(body(), wish, tried).pending == ()
    assert live.difference(body(), body(disks={"root": disk("root", "/b")}), tried).steps


def test_reboot_restarts_what_began_before_it_and_only_once() -> None:
    vm = a_vm(vm_pb2.VM_STATE_RUNNING, vm_pb2.POWER_STATE_RUNNING)
    model = Model(vm, Power.RUNNING)
    model.settle(restart=at(150))
    assert vm.status.state == vm_pb2.VM_STATE_RUNNING and vm.status.start_time == at(200)


def test_a_domain_of_another_uuid_makes_way() -> None:
    vm = a_vm(vm_pb2.VM_STATE_STOPPED, vm_pb2.POWER_STATE_RUNNING)
    other = Domain("web", "other", Power.RUNNING, OffReason.UNKNOWN, "1", "")
    plan = converge(vm, Model(vm).view(domain=other))
    assert [type(step) for step in plan] == [steps.Destroy, steps.Undefine]


def test_a_deletion_with_volumes_keeps_the_row() -> None:
    vm = a_vm(vm_pb2.VM_STATE_RUNNING, vm_pb2.POWER_STATE_OFF)
    vm.meta.delete_time.CopyFrom(at(150))
    model = Model(vm, Power.RUNNING)
    model.settle(held=True)
    assert model.there and not model.defined and vm.status.node == ""


def test_what_is_missing_is_said_once() -> None:
    vm = a_vm(vm_pb2.VM_STATE_STOPPED, vm_pb2.POWER_STATE_RUNNING)
    model = Model(vm)
    model.settle(wish=None, missing="pools/a/volumes/b is CREATING")
    assert vm.status.why == "pools/a/volumes/b is CREATING"


def test_every_transition_is_reached_and_every_step_made() -> None:
    """Does the moves of the tests above once more, for tests may run in any order and apart."""
    for state, power, actual, deleted in product(STATES, POWERS, Power, (False, True)):
        test_whatever_it_is_it_becomes_what_was_decided(state, power, actual, deleted)
    test_a_failed_start_waits_for_the_coordinator()
    test_a_shutdown_that_is_called_back_is_let_finish()
    for case in LIVE_CASES:
        test_what_changes_live_and_what_waits(*case)
    table = {(a, b) for a, after in status.TRANSITIONS.items() for b in after}
    missing = table - REACHED
    assert not missing, [status.move(a, b) for a, b in missing]  # type: ignore[arg-type]
    of_migrations = {
        steps.Migrate, steps.SetDowntime, steps.Throttle, steps.StartPostCopy,
        steps.AbortMigration, steps.SetArrival,
    }  # fmt: skip
    assert {*steps.Step.__args__} - of_migrations == SEEN


def operation(name: str, **given: object) -> operation_pb2.Operation:
    op = operation_pb2.Operation(
        name="operations/1", method=method(name), target="vms/web", **given
    )  # type: ignore[arg-type]
    op.meta.create_time.CopyFrom(at(100))
    return op


def outcome(
    op: operation_pb2.Operation, vm: vm_pb2.Vm | None, now: float = 200, **given: object
) -> str:
    ended = settle(op, vm, at(now), **given)  # type: ignore[arg-type]
    if ended is None:
        return "goes on"
    return "done" if ended.error is None else ended.error.reason_name


RUN, OFF, HALT = (
    vm_pb2.POWER_STATE_RUNNING,
    vm_pb2.POWER_STATE_OFF,
    vm_pb2.POWER_STATE_PAUSED,
)
UP, DOWN = vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_STOPPED


@pytest.mark.parametrize(
    ("name", "vm", "wanted"),
    [
        ("StartVm", a_vm(UP, RUN, taken=2), "done"),
        ("StartVm", a_vm(vm_pb2.VM_STATE_STARTING, RUN), "goes on"),
        ("StartVm", a_vm(DOWN, OFF, asked=3), "SUPERSEDED"),
        ("StartVm", a_vm(UP, RUN, asked=3, taken=3), "done"),
        ("CreateVm", a_vm(UP, RUN, taken=2), "done"),
        ("StopVm", a_vm(UP, OFF), "goes on"),
        ("StopVm", a_vm(DOWN, OFF, taken=2), "done"),
        ("ShutdownVm", a_vm(DOWN, OFF, asked=3, taken=3), "done"),
        ("ShutdownVm", a_vm(UP, RUN, asked=3), "SUPERSEDED"),
        ("PauseVm", a_vm(vm_pb2.VM_STATE_PAUSED, HALT, taken=2), "done"),
        ("PauseVm", a_vm(UP, HALT), "goes on"),
        ("ResumeVm", a_vm(UP, RUN, taken=2), "done"),
        ("RebootVm", a_vm(UP, RUN), "goes on"),
        ("RebootVm", a_vm(UP, OFF, asked=3), "SUPERSEDED"),
        ("StartVm", None, "SUPERSEDED"),
    ],
)
def test_when_operations_end(name: str, vm: vm_pb2.Vm | None, wanted: str) -> None:
    assert outcome(operation(name, power_request=2), vm) == wanted


def test_a_reboot_ends_when_what_runs_began_after_it() -> None:
    op = operation("RebootVm", power_request=2)
    op.start_time.CopyFrom(at(90))
    assert outcome(op, a_vm(UP, RUN)) == "done"
    op.start_time.CopyFrom(at(101))
    assert outcome(op, a_vm(UP, RUN)) == "goes on"


def hopeless(state: int) -> vm_pb2.Vm:
    vm = a_vm(state, OFF)
    vm.spec.power = RUN
    return vm


def test_what_is_given_up_fails() -> None:
    op = operation("StartVm", power_request=2)
    assert outcome(op, hopeless(vm_pb2.VM_STATE_CRASHED)) == "VM_CRASHED"
    assert outcome(op, hopeless(vm_pb2.VM_STATE_FAILED)) == "HYPERVISOR_FAILED"


@pytest.mark.parametrize("full_name", sorted(DEADLINES_S))
def test_nothing_waits_for_ever(full_name: str) -> None:
    name = full_name.rpartition("/")[2]
    wish = {"StopVm": OFF, "ShutdownVm": OFF, "PauseVm": HALT}.get(name, RUN)
    vm = a_vm(vm_pb2.VM_STATE_STOPPING, wish)
    op = operation(name, power_request=2, generation=9)
    assert outcome(op, vm, 200) == "goes on"
    assert outcome(op, vm, 10_000) == "DEADLINE"
    op.cancel_requested = True
    assert outcome(op, vm) == "CANCELLED"


def test_a_change_ends_when_it_is_in_effect_or_was_refused() -> None:
    op = operation("DetachDisk", generation=2)
    op.request.Pack(api.DetachDiskRequest(name="vms/web", disk_id="data"))
    vm = a_vm(UP, RUN, generation=1)
    assert outcome(op, vm) == "goes on"
    vm.status.generation = 2
    assert outcome(op, vm) == "done"
    vm.status.pending_restart.append("disks.data")
    error = PvcError(vm_reason("GUEST_UNRESPONSIVE"), "no")
    refusals = Refusals({"disks.data": error})
    assert outcome(op, vm, refusals=refusals) == "GUEST_UNRESPONSIVE"


def vm_reason(name: str) -> int:
    from pvc.core.v1 import reason_pb2

    return int(reason_pb2.Reason.Value(f"REASON_{name}"))


def filled(**given: object) -> vm_pb2.VmSpec:
    spec = vm_pb2.VmSpec(**given)  # type: ignore[arg-type]
    defaults.fill(spec, "uid-1", ())
    return spec


def test_defaults() -> None:
    spec = filled(disks=[vm_pb2.DiskSpec(id="root", volume="v")], nics=[vm_pb2.NicSpec(id="n")])
    assert (spec.cpu.vcpus, spec.memory.memory_mib, spec.machine) == (1, 1024, "q35")
    assert spec.disks[0].bus == vm_pb2.DISK_BUS_VIRTIO_SCSI and spec.disks[0].discard
    assert spec.disks[0].boot_order == 1 and spec.serial_console and spec.rng
    assert (spec.crash_policy.max_restarts, spec.crash_policy.delay_s) == (5, 2)
    assert spec.shutdown_timeout_s == 180 and spec.nics[0].mac.startswith("52:54:00:")
    assert filled(serial_console=False).serial_console is False


def test_defaults_are_the_same_each_time_and_fill_nothing_twice() -> None:
    first = filled(nics=[vm_pb2.NicSpec(id="a"), vm_pb2.NicSpec(id="b")])
    again = vm_pb2.VmSpec()
    again.CopyFrom(first)
    defaults.fill(again, "uid-1", ())
    assert again == first == filled(nics=[vm_pb2.NicSpec(id="a"), vm_pb2.NicSpec(id="b")])


def test_an_address_that_is_taken_is_not_given_again() -> None:
    first = defaults.free_mac("uid", "net0", ())
    assert defaults.free_mac("uid", "net0", {first}) != first


def test_topology_gives_processors() -> None:
    spec = filled(cpu=vm_pb2.CpuSpec(sockets=2, cores=2))
    assert (spec.cpu.vcpus, spec.cpu.max_vcpus, spec.cpu.threads) == (4, 4, 1)


def test_a_limit_that_followed_follows_and_another_stays() -> None:
    before, after = filled(), filled()
    after.cpu.vcpus, after.memory.memory_mib = 4, 4096
    defaults.grow_limits(after, before, ())
    assert (after.cpu.max_vcpus, after.memory.max_memory_mib) == (4, 4096)
    after = filled()
    after.cpu.vcpus = 4
    defaults.grow_limits(after, before, ["spec.cpu.max_vcpus"])
    assert after.cpu.max_vcpus == 1


@pytest.mark.parametrize(
    "path", ["name", "status.state", "spec.power", "spec.nothing", "spec.disks.volume", "meta.etag"]
)
def test_paths_that_no_update_takes(path: str) -> None:
    with pytest.raises(PvcError) as refused:
        mask.check_path(path)
    assert refused.value.reason_name == "INVALID_FIELD" and refused.value.field == "update_mask"


def test_a_mask_takes_over_what_is_unset_too() -> None:
    source, target = vm_pb2.Vm(), vm_pb2.Vm()
    target.spec.description, target.spec.vnc = "old", False
    for path in ("spec.description", "spec.vnc"):
        masks.take(source, target, path)
    assert target.spec.description == "" and not target.spec.HasField("vnc")


def test_discs_that_bear_the_vms_name_go_with_it() -> None:
    vm = vm_pb2.Vm(name="vms/web")
    for disk, volume, read_only in (
        ("root", "web-root", False),
        ("seed", "web-seed", True),
        ("cd", "debian-installer", True),
        ("empty", "", True),
    ):
        path = f"pools/local/volumes/{volume}" if volume else ""
        vm.spec.disks.add(id=disk, volume=path, read_only=read_only)
    gone = [name.rpartition("/")[2] for name in own_volumes(vm)]
    assert gone == ["web-root", "web-seed"]
