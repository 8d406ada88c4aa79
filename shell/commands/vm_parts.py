"""What VMs are made of: `pvc vm attach-disk` and its kin, and `pvc vm snapshot`."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.fields import argument, put
from shell.commands.vm_options import disk_options, nic_options
from shell.listing import Listing, show_list
from shell.tree import (
    Group,
    command,
    inner_list_options,
    live_names,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group)
def snapshot() -> None:
    """Snapshots of whole VMs: all writable volumes at the same moment, and the spec."""


@command(snapshot, "list", "pvc vm snapshot list web")
@name_argument("vms")
@inner_list_options
def list_(session: Any, name: str, asked: Listing) -> None:
    """List the snapshots of a VM."""
    show_list(
        session, asked, session.cluster.vms.snapshots, columns.VM_SNAPSHOT,
        path="vms/*/snapshots", parent=name,
    )  # fmt: skip


@command(snapshot, "create", "pvc vm snapshot create web before-upgrade")
@name_argument("vms")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@click.option("--description", default="", help="A text for people.")
@waiting_options
def create(
    session: Any, name: str, snapshot_name: str, description: str, wait: bool, dry_run: bool
) -> None:
    """Take a snapshot."""
    extra = options(dry_run=dry_run)
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.vms.snapshots.create(n, description, **extra),
        "snapshot {} is taken",
        wait=wait,
        dry_run=dry_run,
    )


@command(snapshot, "remove", "pvc vm snapshot remove web before-upgrade")
@name_argument("vms")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@waiting_options
@yes_option
def remove(
    session: Any, name: str, snapshot_name: str, wait: bool, dry_run: bool, yes: bool
) -> None:
    """Remove a snapshot."""
    if not dry_run:
        session.confirm(f"Remove the snapshot {snapshot_name} of {name}?", yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.vms.snapshots.delete(n, **extra),
        "snapshot {} is gone",
        wait=wait,
        dry_run=dry_run,
    )


@command(snapshot, "rollback", "pvc vm snapshot rollback web before-upgrade")
@name_argument("vms")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@waiting_options
@yes_option
def rollback(
    session: Any, name: str, snapshot_name: str, wait: bool, dry_run: bool, yes: bool
) -> None:
    """Put a VM that is off back to what it was."""
    if not dry_run:
        question = f"Put {name} back to {snapshot_name}? What it wrote since then is lost."
        session.confirm(question, yes=yes)
    extra = options(dry_run=dry_run)
    act(
        session,
        [f"{name}/{snapshot_name}"],
        lambda n: session.cluster.vms.snapshots.rollback(n, **extra),
        "vm is back at {}",
        wait=wait,
        dry_run=dry_run,
    )


def add_parts(vm: click.Group) -> None:
    """Adds the commands that plug and unplug."""
    _add_attach_disk(vm)
    _add_detach(vm, "disk", "volume stays")
    _add_attach_nic(vm)
    _add_detach(vm, "nic", "network stays")


def _add_attach_disk(vm: click.Group) -> None:
    @command(
        vm,
        "attach-disk",
        "pvc vm attach-disk web local/web-data",
        "pvc vm attach-disk web local/web-data --id data --bus virtio-blk",
    )
    @name_argument("vms")
    @argument("AttachDiskRequest.disk.volume", "volume", shell_complete=live_names("volumes"))
    @disk_options
    @click.option("--cdrom", is_flag=True, help="A CD-ROM drive.")
    @waiting_options
    def attach_disk(session: Any, name: str, wait: bool, dry_run: bool, **given: Any) -> None:
        """Add a drive, live when the VM runs."""
        there = session.cluster.vms.get(name)
        disk = _disk(there, given)
        extra = options(dry_run=dry_run)
        act(
            session,
            [name],
            lambda n: session.cluster.vms.attach_disk(n, disk, **extra),
            f"vm {{}} has the drive {disk.id}",
            wait=wait,
            dry_run=dry_run,
        )


def _disk(there: Any, given: dict[str, Any]) -> Any:
    """The drive that the options describe."""
    from pvc.compute.v1 import vm_pb2
    from pvc_client.names import full_name
    from shell.spec import next_id

    disk = vm_pb2.DiskSpec(
        id=next_id("disk", [one.id for one in there.spec.disks]),
        volume=full_name("pools/volumes", given["volume"], "VOLUME"),
    )
    if given["cdrom"]:
        disk.device = vm_pb2.DISK_DEVICE_CDROM
    put(disk, "DiskSpec", given)
    return disk


def _add_attach_nic(vm: click.Group) -> None:
    @command(
        vm, "attach-nic", "pvc vm attach-nic web default", "pvc vm attach-nic web lan --id lan"
    )
    @name_argument("vms")
    @argument("AttachNicRequest.nic.network", "network", shell_complete=live_names("networks"))
    @nic_options
    @waiting_options
    def attach_nic(session: Any, name: str, wait: bool, dry_run: bool, **given: Any) -> None:
        """Add a network interface, live when the VM runs."""
        nic = _nic(session.cluster.vms.get(name), given)
        extra = options(dry_run=dry_run)
        act(
            session,
            [name],
            lambda n: session.cluster.vms.attach_nic(n, nic, **extra),
            f"vm {{}} has the interface {nic.id}",
            wait=wait,
            dry_run=dry_run,
        )


def _nic(there: Any, given: dict[str, Any]) -> Any:
    """The interface that the options describe."""
    from pvc.compute.v1 import vm_pb2
    from pvc_client.names import full_name
    from shell.spec import next_id

    nic = vm_pb2.NicSpec(
        id=next_id("net", [one.id for one in there.spec.nics]),
        network=full_name("networks", given["network"], "NETWORK"),
    )
    put(nic, "NicSpec", given)
    return nic


def _add_detach(vm: click.Group, part: str, rest: str) -> None:
    @command(
        vm, f"detach-{part}", f"pvc vm detach-{part} web {'data' if part == 'disk' else 'net1'}"
    )
    @name_argument("vms")
    @click.argument("part_id", metavar="ID")
    @waiting_options
    @yes_option
    def detach(session: Any, name: str, part_id: str, wait: bool, dry_run: bool, yes: bool) -> None:
        if not dry_run:
            session.confirm(f"Take {part_id} out of {name}? The {rest}.", yes=yes)
        begin = getattr(session.cluster.vms, f"detach_{part}")
        extra = options(dry_run=dry_run)
        act(
            session,
            [name],
            lambda n: begin(n, part_id, **extra),
            f"vm {{}} has no {part_id} any more",
            wait=wait,
            dry_run=dry_run,
        )

    noun = "drive" if part == "disk" else "network interface"
    detach.help = f"Take a {noun} out, live when the VM runs; its {rest}."
