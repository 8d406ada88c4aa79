"""The agent with the real coordinator and a fake hypervisor: a VM's life."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, operation_pb2
from services.compute.core import edits, requests
from services.compute.core.life import View
from services.compute.drivers.hypervisor import Domain, Guest, OffReason
from services.mesh.errors import PvcError
from services.state.store import Put, Snapshot
from tests.compute.world import NODE, POOL, World

Operation = operation_pb2.Operation
SUCCEEDED, FAILED = Operation.STATE_SUCCEEDED, Operation.STATE_FAILED


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def reason(operation: Operation) -> str:
    return PvcError.from_status(operation.error).reason_name


def state(world: World, name: str = "web") -> str:
    return vm_pb2.VmState.Name(world.vm(name).status.state).removeprefix("VM_STATE_")


def test_a_vm_is_created_and_started(world: World) -> None:
    operation = world.create()
    world.settle()
    vm = world.vm()
    assert state(world) == "RUNNING"
    assert vm.status.node == NODE and vm.status.vcpus == 1 and vm.status.memory_mib == 1024
    assert vm.status.disks[0].volume == f"{POOL}/volumes/root"
    assert vm.status.nics[0].device == "vnet0" and vm.status.vnc == "127.0.0.1:5900"
    assert vm.status.power_request == vm.spec.power_request == 1
    assert vm.status.generation == vm.meta.generation
    assert world.operation(operation.name).state == SUCCEEDED
    assert world.hypervisor.told == ["define web", "start web"]


def test_every_change_of_state_is_told_with_its_why(world: World) -> None:
    world.running()
    told = [e.message for e in world.state.rows(event_pb2.Event) if e.cause == "compute n1"]
    assert told == ["vm web NEW → STARTING", "vm web STARTING → RUNNING"]


def test_a_calm_vm_costs_no_commit(world: World) -> None:
    world.running()
    before = world.state.revision
    for _ in range(3):
        world.clock.seconds += 10
        world.agent.step()
    assert world.state.revision == before


def test_only_those_are_looked_at_with_which_something_is_to_be_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.running()
    other = api.CreateVmRequest(vm_id="off")
    other.vm.spec.disks.add(id="root", volume=f"{POOL}/volumes/data")
    world.ask(edits.create, other)
    world.settle()
    looked: list[str] = []
    view = world.agent._sight.view

    def seen(snapshot: Snapshot, vm: vm_pb2.Vm, *rest: Any) -> View:
        looked.append(vm.name)
        return view(snapshot, vm, *rest)

    monkeypatch.setattr(world.agent._sight, "view", seen)
    world.clock.seconds += 10
    world.agent.step()
    assert not looked
    world.verb(requests.START, "off")
    world.settle()
    assert set(looked) == {"vms/off"} and state(world, "off") == "RUNNING"
    world.hypervisor.halt("web")
    world.settle()
    assert "vms/web" in looked and state(world) == "PAUSED"


def test_what_was_seen_before_a_start_is_not_taken_for_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread starts the VM after the round has listed the domains and before it comes to it."""
    world.create()
    world.coordinator.step()
    domains, agent = world.hypervisor.domains, world.agent

    def listed() -> Mapping[str, Domain]:
        seen = domains()
        lease = agent._presence.hold()
        for _ in range(2):
            agent._run("web", lambda: agent._tend(lease, "vms/web", None, None))
            if state(world) == "RUNNING":
                break
        assert state(world) == "RUNNING"
        return seen

    monkeypatch.setattr(world.hypervisor, "domains", listed)
    world.agent.look_again()
    world.agent.step()
    monkeypatch.undo()
    assert state(world) == "RUNNING"
    world.settle()
    assert state(world) == "RUNNING" and world.vm().status.crashes == 0


def test_without_a_change_nobody_is_asked(world: World) -> None:
    world.running()
    world.clock.seconds += 10
    world.agent.step()
    asked: list[str] = []
    world.hypervisor.before = asked.append
    for _ in range(4):
        world.clock.seconds += 1
        world.agent.step()
    assert not asked
    world.clock.seconds += 1
    world.agent.step()
    assert asked == ["domains"]


def test_the_node_tells_of_itself(world: World) -> None:
    world.agent.step()
    node = world.state.find(cluster_pb2.Node, NODE)
    assert node is not None and node.status.cpus == 4 and node.status.accelerator == "tcg"
    assert node.status.boot_id == "boot-1" and node.status.memory_for_vms_mib == 8192 - 1024
    assert world.state.leases[NODE] == NODE


def test_shutdown_asks_the_guest(world: World) -> None:
    world.running()
    operation = world.verb(requests.SHUTDOWN)
    world.settle()
    assert state(world) == "STOPPED" and not world.vm().status.guest_shutdown
    assert world.operation(operation.name).state == SUCCEEDED
    assert world.hypervisor.told[-1] == "shutdown web"


def test_a_deaf_guest_is_switched_off_after_the_timeout(world: World) -> None:
    world.running(shutdown_timeout_s=30)
    world.hypervisor.script("web").ignores_acpi = True
    operation = world.verb(requests.SHUTDOWN)
    world.settle()
    assert state(world) == "STOPPING"
    world.later(11)
    assert world.hypervisor.told.count("shutdown web") == 2
    world.later(20)
    assert state(world) == "STOPPED" and "did not shut down" in world.vm().status.why
    assert world.operation(operation.name).state == SUCCEEDED


def test_stop_pulls_the_plug(world: World) -> None:
    world.running()
    world.verb(requests.STOP)
    world.settle()
    assert state(world) == "STOPPED" and world.hypervisor.told[-1] == "destroy web"


def test_pause_and_resume(world: World) -> None:
    world.running()
    world.verb(requests.PAUSE)
    world.settle()
    assert state(world) == "PAUSED"
    world.verb(requests.RESUME)
    world.settle()
    assert state(world) == "RUNNING"


def test_a_paused_vm_is_let_go_on_to_shut_down(world: World) -> None:
    world.running()
    world.verb(requests.PAUSE)
    world.settle()
    vm = world.vm()
    vm.spec.power, vm.spec.power_request = vm_pb2.POWER_STATE_SHUT_DOWN, 9
    world.store.commit([Put(vm)])
    world.settle()
    assert state(world) == "STOPPED" and world.hypervisor.told[-2:] == [
        "resume web",
        "shutdown web",
    ]


def test_a_crashed_vm_is_started_again_later_and_later_then_left(world: World) -> None:
    world.running(crash_policy=vm_pb2.CrashPolicy(max_restarts=2, delay_s=2))
    for wait_s in (2, 4):
        world.hypervisor.end("web", OffReason.CRASHED)
        world.settle()
        assert state(world) == "CRASHED" and f"in {wait_s} s" in world.vm().decision.why
        world.later(wait_s)
        assert state(world) == "RUNNING"
    world.hypervisor.end("web", OffReason.CRASHED)
    world.settle()
    world.later(1000)
    assert state(world) == "CRASHED" and world.vm().status.crashes == 3
    operation = world.verb(requests.START)
    world.settle()
    assert state(world) == "RUNNING" and world.operation(operation.name).state == SUCCEEDED


def test_a_start_that_fails_for_good_fails_the_operation_with_the_hypervisors_words(
    world: World,
) -> None:
    world.hypervisor.script("web").start_fails = "no such bridge"
    operation = world.create(crash_policy=vm_pb2.CrashPolicy(max_restarts=2, delay_s=1))
    world.settle()
    assert state(world) == "FAILED" and "no such bridge" in world.vm().status.why
    assert world.operation(operation.name).state == Operation.STATE_RUNNING
    world.later(5)
    world.later(5)
    ended = world.operation(operation.name)
    assert ended.state == FAILED and reason(ended) == "HYPERVISOR_FAILED"
    assert "no such bridge" in ended.error.message


def test_a_crash_loop_fails_the_start(world: World) -> None:
    world.create(start=False, crash_policy=vm_pb2.CrashPolicy(action=vm_pb2.CRASH_ACTION_LEAVE))
    world.settle()
    operation = world.verb(requests.START)
    world.coordinator.step()
    vm = world.vm()
    vm.status.state, vm.status.crashes = vm_pb2.VM_STATE_CRASHED, 1
    world.store.commit([Put(vm)])
    world.settle()
    ended = world.operation(operation.name)
    assert ended.state == FAILED and reason(ended) == "VM_CRASHED"


def test_a_guest_that_switches_itself_off_stays_off(world: World) -> None:
    world.running()
    world.hypervisor.end("web", OffReason.SHUT_DOWN)
    world.agent.step()
    assert world.vm().status.guest_shutdown
    world.settle()
    world.later(1000)
    assert state(world) == "STOPPED" and not world.vm().status.guest_shutdown
    world.verb(requests.START)
    world.settle()
    assert state(world) == "RUNNING"


def test_after_a_restart_of_the_machine_it_is_started_again(world: World) -> None:
    world.running()
    world.hypervisor.end("web", OffReason.UNKNOWN)
    world.clock.seconds += 100
    world.machine = type(world.machine)(4, 8192, "6.1", "boot-2", world.clock.now())
    world.restart()
    world.settle()
    assert state(world) == "RUNNING" and world.vm().status.crashes == 0


def test_what_does_not_start_with_its_machine_is_not_even_tried(world: World) -> None:
    world.running(autostart=vm_pb2.AUTOSTART_NEVER)
    world.hypervisor.end("web", OffReason.UNKNOWN)
    world.clock.seconds += 100
    world.machine = type(world.machine)(4, 8192, "6.1", "boot-2", world.clock.now())
    world.restart()
    for _ in range(3):
        world.agent.look_again()
        world.agent.step()
    world.settle()
    assert state(world) == "STOPPED" and world.hypervisor.script("web").starts == 1


def test_a_running_domain_is_adopted_after_a_restart_of_the_agent(world: World) -> None:
    world.running()
    calls = list(world.hypervisor.told)
    world.restart()
    world.settle()
    assert state(world) == "RUNNING" and world.hypervisor.told == calls


def test_reboot_starts_anew_with_what_waited_for_it(world: World) -> None:
    world.running()
    update = api.UpdateVmRequest(vm=vm_pb2.Vm(name="vms/web"))
    update.vm.spec.firmware = vm_pb2.FIRMWARE_UEFI
    changed = world.ask(edits.update, update)
    world.settle()
    assert list(world.vm().status.pending_restart) == ["firmware"]
    assert world.operation(changed.name).state == SUCCEEDED
    world.clock.seconds += 10
    operation = world.ask(requests.reboot, api.RebootVmRequest(name="vms/web"))
    world.settle()
    assert world.operation(operation.name).state == SUCCEEDED
    assert not world.vm().status.pending_restart
    assert world.hypervisor.told[-3:] == ["shutdown web", "define web", "start web"]


def test_disks_and_interfaces_are_plugged_live(world: World) -> None:
    world.running()
    request = api.AttachDiskRequest(name="vms/web")
    request.disk.id, request.disk.volume = "data", f"{POOL}/volumes/data"
    plugged = world.ask(edits.attach_disk, request)
    world.settle()
    assert world.operation(plugged.name).state == SUCCEEDED
    assert [disk.id for disk in world.vm().status.disks] == ["data", "root"]
    world.ask(edits.detach_disk, api.DetachDiskRequest(name="vms/web", disk_id="data"))
    world.ask(edits.detach_nic, api.DetachNicRequest(name="vms/web", nic_id="net0"))
    world.settle()
    assert [disk.id for disk in world.vm().status.disks] == ["root"]
    assert not world.vm().status.nics
    assert world.hypervisor.told[2:] == [
        "attach web ua-disk-data",
        "detach web ua-disk-data",
        "detach web ua-nic-net0",
    ]


def test_a_guest_that_does_not_let_go_fails_the_detach_once(world: World) -> None:
    world.running()
    world.hypervisor.script("web").refuses_detach = True
    operation = world.ask(edits.detach_nic, api.DetachNicRequest(name="vms/web", nic_id="net0"))
    world.settle()
    world.later(60)
    ended = world.operation(operation.name)
    assert ended.state == FAILED and reason(ended) == "GUEST_UNRESPONSIVE"
    assert list(world.vm().status.pending_restart) == ["nics.net0"]
    assert world.hypervisor.told.count("detach web ua-nic-net0") == 1


def test_processors_and_memory_change_live(world: World) -> None:
    world.running(cpu=vm_pb2.CpuSpec(max_vcpus=4), memory=vm_pb2.MemorySpec(max_memory_mib=4096))
    update = api.UpdateVmRequest(vm=vm_pb2.Vm(name="vms/web"))
    update.vm.spec.cpu.vcpus, update.vm.spec.memory.memory_mib = 3, 2048
    operation = world.ask(edits.update, update)
    world.settle()
    assert world.operation(operation.name).state == SUCCEEDED
    assert (world.vm().status.vcpus, world.vm().status.memory_mib) == (3, 2048)
    assert not world.vm().status.pending_restart


def test_deleting_leaves_nothing(world: World) -> None:
    world.running()
    world.ask(edits.delete, api.DeleteVmRequest(name="vms/web", force=True))
    world.settle()
    assert world.state.find(vm_pb2.Vm, "vms/web") is None
    assert not world.hypervisor.names()


def test_what_the_state_does_not_know_is_left_alone_and_told(world: World) -> None:
    """A state that was lost or put back from a copy must not cost anybody a running guest."""
    world.running()
    vm = world.vm()
    from services.state.store import Delete

    world.store.commit([Delete(vm.name, vm.meta.etag)])
    world.settle()
    world.agent.look_again()
    world.agent.step()
    assert world.hypervisor.names() == {"web"}
    node = world.state.find(cluster_pb2.Node, NODE)
    assert (
        node is not None
        and "the domain web runs and the cluster knows no such VM" in (node.status.faults[0])
    )


def test_a_renamed_vm_takes_its_files_along(world: World) -> None:
    world.running()
    world.verb(requests.STOP)
    world.settle()
    world.settings.nvram("web").write_text("boot entries")
    world.settings.console_log("web").with_name("web.log.1").write_text("the past")
    operation = world.ask(edits.rename, api.RenameVmRequest(name="vms/web", new_vm_id="shop"))
    assert operation.state == SUCCEEDED
    world.verb(requests.START, "shop")
    world.settle()
    assert state(world, "shop") == "RUNNING" and world.hypervisor.names() == {"shop"}
    assert world.settings.nvram("shop").read_text() == "boot entries"
    assert world.settings.console_log("shop").with_name("shop.log.1").read_text() == "the past"


def test_a_name_that_is_used_again_gets_a_new_domain(world: World) -> None:
    first = world.running()
    from services.state.store import Delete

    world.store.commit([Delete(first.name, first.meta.etag)])
    world.running()
    assert world.hypervisor.domains()["web"].uuid == world.vm().spec.uuid != first.spec.uuid


def test_a_newer_request_supersedes(world: World) -> None:
    operation = world.create()
    world.verb(requests.STOP)
    world.settle()
    ended = world.operation(operation.name)
    assert ended.state == FAILED and reason(ended) == "SUPERSEDED"


def test_what_is_missing_is_waited_for_and_told(world: World) -> None:
    from pvc.network.v1 import network_pb2

    operation = world.create()
    network = world.state.find(network_pb2.Network, "networks/default")
    assert network is not None
    gone = network_pb2.Network()
    gone.CopyFrom(network)
    gone.status.state = network_pb2.NetworkStatus.STATE_FAILED
    world.store.commit([Put(gone)])
    world.settle()
    assert state(world) == "STOPPED" and "networks/default" in world.vm().status.why
    world.later(1900)
    assert reason(world.operation(operation.name)) == "DEADLINE"
    back = world.state.find(network_pb2.Network, "networks/default")
    assert back is not None
    back.status.state = network_pb2.NetworkStatus.STATE_READY
    world.store.commit([Put(back)])
    world.settle()
    assert state(world) == "RUNNING"


def test_an_unasked_pause_is_told_and_undone_with_patience(world: World) -> None:
    world.running()
    world.hypervisor.halt("web")
    world.settle()
    assert state(world) == "PAUSED" and "unasked" in world.vm().status.why
    world.later(10)
    assert state(world) == "RUNNING"


def test_a_full_disk_is_named_and_tried_again_with_more_patience(world: World) -> None:
    world.running()
    world.hypervisor.storage_fails("web", "sda has no space")
    world.settle()
    assert state(world) == "PAUSED" and "sda has no space" in world.vm().status.why
    world.hypervisor.storage_fails("web", "sdb has no space")
    world.later(10)
    assert state(world) == "PAUSED" and "sdb has no space" in world.vm().status.why
    world.later(50)
    assert state(world) == "RUNNING" and not world.vm().status.why


def test_asking_lets_a_full_disk_be_tried_at_once(world: World) -> None:
    world.running()
    world.hypervisor.storage_fails("web", "sda has no space")
    world.settle()
    operation = world.verb(requests.RESUME)
    world.settle()
    assert state(world) == "RUNNING" and world.operation(operation.name).state == SUCCEEDED


def test_what_a_guest_says_of_itself_is_cut_to_what_can_be_shown(world: World) -> None:
    world.running()
    rubbish = Guest("web\x1b[2J\ud800\n" + "x" * 999, "Debian\x00", ("10.64.0.10/24",))
    world.hypervisor.script("web").agent = rubbish
    world.guests.step()
    world.settle()
    guest = world.vm().status.guest
    assert guest.host_name.startswith("web[2Jxxx") and len(guest.host_name) == 256
    assert guest.os == "Debian"


def test_guest_facts_come_beside_the_way(world: World) -> None:
    world.running()
    world.hypervisor.script("web").agent = Guest("web", "Debian", ("10.64.0.10/24",))
    world.guests.step()
    world.settle()
    assert world.vm().status.guest.host_name == "web"
    world.hypervisor.script("web").agent = None
    world.clock.seconds += 11
    world.guests.step()
    world.settle()
    assert not world.vm().status.HasField("guest")


def test_what_a_guest_said_outlives_the_agent(world: World) -> None:
    world.running()
    world.hypervisor.script("web").agent = Guest("web", "Debian", ("10.64.0.10/24",))
    world.guests.step()
    world.settle()
    before = world.vm()
    world.restart()
    world.settle()
    assert before.status.guest.host_name == "web" and world.vm() == before


def test_a_hypervisor_that_is_away_is_a_fault_of_the_node_and_nothing_else(world: World) -> None:
    world.running()
    world.hypervisor.away = True
    world.agent.look_again()
    world.agent.step()
    node = world.state.find(cluster_pb2.Node, NODE)
    assert node is not None and "no connection" in node.status.faults[0]
    assert state(world) == "RUNNING"
    operation = world.verb(requests.STOP)
    world.clock.seconds += 1000
    world.agent.step()
    assert reason(world.operation(operation.name)) == "DEADLINE"
    world.hypervisor.away = False
    world.settle()
    node = world.state.find(cluster_pb2.Node, NODE)
    assert node is not None and not node.status.faults


def test_a_lost_session_is_taken_again(world: World) -> None:
    world.running()
    world.store.lose_session()
    world.settle()
    node = world.state.find(cluster_pb2.Node, NODE)
    assert node is not None and node.status.session == world.store.session()


@pytest.mark.parametrize("verb", ["define", "start"])
@pytest.mark.parametrize("how", ["hangs", "works_late"])
def test_a_hypervisor_that_hangs_or_answers_late_is_no_crash(
    world: World, verb: str, how: str
) -> None:
    script = world.hypervisor.script("web")
    getattr(script, how).add(verb)
    operation = world.create()
    world.settle()
    assert state(world) == "STARTING"
    getattr(script, how).clear()
    world.later(6)
    assert state(world) == "RUNNING" and world.vm().status.crashes == 0
    assert world.operation(operation.name).state == SUCCEEDED
    assert script.starts == 1


def test_a_shutdown_that_cannot_be_asked_for_is_tried_again(world: World) -> None:
    world.running()
    world.hypervisor.script("web").hangs.add("shutdown")
    world.verb(requests.SHUTDOWN)
    world.settle()
    assert state(world) == "STOPPING"
    warned = [e for e in world.state.rows(event_pb2.Event) if "shutdown failed" in e.message]
    assert len(warned) == 1
    world.later(11)
    again = [e for e in world.state.rows(event_pb2.Event) if "shutdown failed" in e.message]
    assert again == warned, "the same words are told once"
    world.hypervisor.script("web").hangs.clear()
    world.later(11)
    assert state(world) == "STOPPED"
