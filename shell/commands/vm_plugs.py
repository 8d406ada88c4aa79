"""`pvc vm attach-disk` and its kin, and the same as `pvc vm volume` and `pvc vm network`: what is
plugged into a VM and taken out of it."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.fields import argument, put
from shell.commands.losses import is_on
from shell.commands.vm_options import disk_options, nic_options
from shell.listing import Listing, show_rows
from shell.render import RECORD, Column
from shell.tree import (
    Group,
    command,
    live_names,
    name_argument,
    options,
    rows_options,
    waiting_options,
    yes_option,
)
from shell.waiting import act


@click.group(cls=Group)
def vm() -> None:
    """Holds what `pvc vm` has of these under names of its own."""


@click.group(cls=Group, aliases={"list": "get", "attach": "add", "detach": "remove"})
def network() -> None:
    """A VM's network interfaces."""


@click.group(cls=Group, aliases={"list": "get", "attach": "add", "detach": "remove"})
def volume() -> None:
    """A VM's drives."""


DISK = (
    Column("ID", lambda r, v: r.id),
    Column("VOLUME", lambda r, v: columns.ids(r.volume), elastic=True),
    Column("DEVICE", lambda r, v: columns.enum_word(r, "device") or "disk"),
    Column("BUS", lambda r, v: columns.enum_word(r, "bus")),
    Column("CACHE", lambda r, v: columns.enum_word(r, "cache")),
    Column("BOOT", lambda r, v: str(r.boot_order or ""), right=True),
    Column("READ-ONLY", lambda r, v: "yes" if r.read_only else "no"),
    Column("DISCARD", lambda r, v: "no" if r.HasField("discard") and not r.discard else "yes",
           RECORD),
)  # fmt: skip
NIC = (
    Column("ID", lambda r, v: r.id),
    Column("NETWORK", lambda r, v: columns.last(r.network)),
    Column("MAC", lambda r, v: r.mac),
    Column("MODEL", lambda r, v: columns.enum_word(r, "model")),
    Column("BOOT", lambda r, v: str(r.boot_order or ""), right=True),
    Column("LINK", lambda r, v: "down" if r.link_down else "up"),
)


@command(network, "get", "pvc vm network get web")
@name_argument("vms")
@rows_options
def network_get(session: Any, name: str, asked: Listing) -> None:
    """List a VM's network interfaces."""
    show_rows(session, asked, list(session.cluster.vms.get(name).spec.nics), NIC)


@command(volume, "get", "pvc vm volume get web")
@name_argument("vms")
@rows_options
def volume_get(session: Any, name: str, asked: Listing) -> None:
    """List a VM's drives."""
    show_rows(session, asked, list(session.cluster.vms.get(name).spec.disks), DISK)


def plug_disk(session: Any, name: str, wait: Any, dry_run: bool, **given: Any) -> None:
    """Add a drive, live when the VM runs."""
    disk = _disk(session.cluster.vms.get(name), given)
    extra = options(dry_run=dry_run)
    attach = session.cluster.vms.attach_disk
    act(session, [name], lambda n: attach(n, disk, **extra), f"vm {{}} has the drive {disk.id}",
        wait=wait, dry_run=dry_run)  # fmt: skip


def _disk(there: Any, given: dict[str, Any]) -> Any:
    """The drive that the options describe."""
    from pvc.compute.v1 import vm_pb2
    from pvc_client.names import full_name
    from shell.spec import next_id

    disk = vm_pb2.DiskSpec(id=next_id("disk", [one.id for one in there.spec.disks]))
    if given["volume"]:
        disk.volume = full_name("pools/volumes", given["volume"], "VOLUME")
    elif not given["cdrom"]:
        raise click.UsageError("name the VOLUME; only a --cdrom may be empty")
    if given["cdrom"]:
        disk.device = vm_pb2.DISK_DEVICE_CDROM
    put(disk, "DiskSpec", given)
    return disk


def plug_nic(session: Any, name: str, wait: Any, dry_run: bool, **given: Any) -> None:
    """Add a network interface, live when the VM runs."""
    nic = _nic(session.cluster.vms.get(name), given)
    extra = options(dry_run=dry_run)
    attach = session.cluster.vms.attach_nic
    act(session, [name], lambda n: attach(n, nic, **extra), f"vm {{}} has the interface {nic.id}",
        wait=wait, dry_run=dry_run)  # fmt: skip


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


def _add_plugs() -> None:
    """Adds what plugs and unplugs, under both names: `vm attach-disk` and `vm volume add`."""
    for group, name in ((vm, "attach-disk"), (volume, "add")):
        _plug_disk(group, name)
    for group, name in ((vm, "attach-nic"), (network, "add")):
        _plug_nic(group, name)
    for group, name in ((vm, "detach-disk"), (volume, "remove")):
        _unplug(group, name, "disk")
    for group, name in ((vm, "detach-nic"), (network, "remove")):
        _unplug(group, name, "nic")


def _words(group: click.Group, name: str) -> str:
    return f"pvc vm {name}" if group.name == "vm" else f"pvc vm {group.name} {name}"


def _plug_disk(group: click.Group, name: str) -> None:
    words = _words(group, name)

    @command(group, name, f"{words} web local/web-data",
             f"{words} web local/web-data --id data --bus virtio-blk")  # fmt: skip
    @name_argument("vms")
    @argument("AttachDiskRequest.disk.volume", "volume", required=False,
              shell_complete=live_names("volumes"))  # fmt: skip
    @disk_options
    @click.option("--cdrom", is_flag=True, help="A CD-ROM drive; without a VOLUME it is empty.")
    @waiting_options
    def plug(session: Any, **given: Any) -> None:
        plug_disk(session, **given)

    plug.help = plug_disk.__doc__


def _plug_nic(group: click.Group, name: str) -> None:
    words = _words(group, name)

    @command(group, name, f"{words} web default", f"{words} web lan --id lan")
    @name_argument("vms")
    @argument("AttachNicRequest.nic.network", "network", shell_complete=live_names("networks"))
    @nic_options
    @waiting_options
    def plug(session: Any, **given: Any) -> None:
        plug_nic(session, **given)

    plug.help = plug_nic.__doc__


def _unplug(group: click.Group, name: str, part: str) -> None:
    words, rest = _words(group, name), "volume stays" if part == "disk" else "network stays"

    @command(group, name, f"{words} web {'data' if part == 'disk' else 'net1'}")
    @name_argument("vms")
    @click.argument("part_id", metavar="ID")
    @waiting_options
    @yes_option
    def unplug(session: Any, name: str, part_id: str, wait: Any, dry_run: bool, yes: bool) -> None:
        there = session.cluster.vms.get(name)
        found = _part_of(there, part, part_id)
        if not dry_run and is_on(there):
            session.confirm(f"Take {part_id} out of {name}, which runs? The {rest}.", yes=yes)
        begin, extra = getattr(session.cluster.vms, f"detach_{part}"), options(dry_run=dry_run)
        done = f"vm {{}} has no {found} any more"
        act(session, [name], lambda n: begin(n, found, **extra), done, wait=wait, dry_run=dry_run)

    noun = "drive" if part == "disk" else "network interface"
    unplug.help = (
        f"Take a {noun} out, live when the VM runs; its {rest}.\n\n"
        f"ID is the {noun}'s own, or that of its {'volume' if part == 'disk' else 'network'}."
    )


def _part_of(vm: Any, part: str, wanted: str) -> str:
    """The id of a drive or interface: itself, of its volume's or network's name, of its hardware
    address. Raises UsageError when several are meant."""
    parts = vm.spec.disks if part == "disk" else vm.spec.nics
    if any(one.id == wanted for one in parts):
        return wanted
    said = {
        one.id: {columns.ids(one.volume), one.volume, columns.last(one.volume)}
        if part == "disk"
        else {columns.last(one.network), one.network, one.mac}
        for one in parts
    }
    found = [own for own, words in said.items() if wanted in words]
    if len(found) > 1:
        raise click.UsageError(f"{wanted} is behind {', '.join(found)}: say which of them")
    return found[0] if found else wanted


_add_plugs()
attach_disk, attach_nic = vm.commands["attach-disk"], vm.commands["attach-nic"]
detach_disk, detach_nic = vm.commands["detach-disk"], vm.commands["detach-nic"]
