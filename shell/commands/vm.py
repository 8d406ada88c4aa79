"""`pvc vm`: the whole life of virtual machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from shell import columns
from shell.answers import tell
from shell.commands.edit import add_edit, add_export
from shell.commands.fields import argument, field, nothing_given, put
from shell.commands.raw import amended
from shell.commands.shared import add_info
from shell.commands.vm_options import label_option, place_options, shape_options
from shell.commands.vm_place import add_places
from shell.commands.vm_power import add_power, add_removal
from shell.commands.wait import add_wait
from shell.listing import Listing, show_list
from shell.tree import (
    F,
    Group,
    Pair,
    Size,
    answer_option,
    command,
    dry_run_option,
    list_options,
    live_names,
    name_argument,
    options,
    waiting_options,
    yes_option,
)
from shell.waiting import act, finish, format_of, show_plan


@click.group(
    cls=Group,
    aliases={
        "restart": "reboot", "set": "modify", "update": "modify", "meta": "modify",
        "undefine": "delete", "import": "define",
    },
    lazy={
        "snapshot": ("shell.commands.vm_snapshot:snapshot", "Snapshots of whole VMs"),
        "apply": ("shell.commands.apply:apply", "Have VMs be as files say"),
        "tag": ("shell.commands.vm_aspects:tag", "The words that a VM is found by"),
        "vcpu": ("shell.commands.vm_aspects:vcpu", "A VM's processors"),
        "memory": ("shell.commands.vm_aspects:memory", "A VM's memory"),
        "network": ("shell.commands.vm_plugs:network", "A VM's network interfaces"),
        "volume": ("shell.commands.vm_plugs:volume", "A VM's drives"),
        "attach-disk": ("shell.commands.vm_plugs:attach_disk", "Add a drive"),
        "detach-disk": ("shell.commands.vm_plugs:detach_disk", "Take a drive out"),
        "attach-nic": ("shell.commands.vm_plugs:attach_nic", "Add a network interface"),
        "detach-nic": ("shell.commands.vm_plugs:detach_nic", "Take a network interface out"),
    },
)  # fmt: skip
def vm() -> None:
    """Virtual machines: make, run, change, look into, remove."""


@command(
    vm,
    "list",
    "pvc vm list",
    "pvc vm list 'web*' --state running -f wide",
    "pvc vm list --filter 'state=running memory>2G tag:web' --sort -memory,name",
    "pvc vm list --columns name,node,spec.cpu.vcpus -f csv",
)
@list_options
@click.option("-s", "--state", help="Only in this state: running, stopped, crashed…")
@click.option("-g", "--tag", multiple=True, help="Only with this tag.")
@click.option("-t", "--node", help="Only on this node.", shell_complete=live_names("nodes"))
def list_(
    session: Any, asked: Listing, state: str | None, tag: tuple[str, ...], node: str | None
) -> None:
    """List VMs; PATTERNs for the name may have stars."""
    terms = [f'spec.tags:"{one}"' for one in tag]
    if state:
        terms.append(f"status.state = {state.upper()}")
    if node:
        terms.append(f'decision.node = "nodes/{node}"')
    show_list(
        session, asked, session.cluster.vms, columns.VM, path="vms", terms=terms,
        first="pvc vm create NAME --image IMAGE --start",
    )  # fmt: skip


add_info(vm, "vms", columns.VM, "pvc vm info web", "pvc vm info web -f yaml")


def _text(path: str | None) -> str:
    """What is in a file; "" for none, standard input for "-"."""
    if not path:
        return ""
    with click.open_file(path, encoding="utf-8") as file:
        try:
            return str(file.read())
        except UnicodeDecodeError:
            raise click.BadParameter(f"{path} is not a text in UTF-8") from None


def _file_option(name: str, help: str) -> Callable[[F], F]:
    kind: Any = click.Path(exists=True, dir_okay=False, allow_dash=True)
    return click.option(name, type=kind, help=help)


@command(
    vm,
    "create",
    "pvc vm create web --image debian-12 --memory 768M --vcpus 2 --user-data web.yaml --start",
    "pvc vm create db --disk local/db-root --network default --memory 4G",
)
@argument("CreateVmRequest.vm_id", "name")
@field(
    "ProvisionVmRequest.image",
    "--image",
    help="Make it from an image.",
    shell_complete=live_names("images"),
)
@field(
    "ProvisionVmRequest.pool",
    "--pool",
    help="Pool for its volumes.",
    shell_complete=live_names("pools"),
)
@field(
    "ProvisionVmRequest.root_size_bytes",
    "--root-size",
    type=Size("G"),
    help="Size of the root disk (bare: GiB).",
)
@_file_option("--user-data", "cloud-init user data; - for stdin.")
@_file_option("--meta-data", "More cloud-init meta data.")
@_file_option("--network-data", "cloud-init network data.")
@field(
    "CreateVmRequest.vm.spec.disks.volume",
    "--disk",
    multiple=True,
    help="A volume as a drive.",
    shell_complete=live_names("volumes"),
)
@field(
    "CreateVmRequest.vm.spec.nics.network",
    "--network",
    multiple=True,
    help="An interface on it.",
    shell_complete=live_names("networks"),
)
@field("vm.spec.tags", "--tag", multiple=True, help="A word to find it by.")
@label_option
@_file_option("--spec", "Begin with the spec of the VM in this file, as pvc vm export prints it.")
@field("vm.spec.uuid", "--uuid", help="Its UUID; made up without it.")
@click.option("--start", is_flag=True, help="Start it.")
@shape_options
@place_options
@waiting_options
def create(session: Any, name: str, wait: bool, dry_run: bool, **given: Any) -> None:
    """Make a VM: from an image with --image, or from volumes that exist."""
    begin = _provisioned if given["image"] else _created
    pending = begin(session, name, given, options(dry_run=dry_run))
    if dry_run:
        show_plan(pending, format_of(wait))
    else:
        state = "runs" if given["start"] else "is made"
        finish(session, pending, f"vm {name} {state}", wait=wait)


def _new_vm(given: dict[str, Any], disks: Sequence[str], networks: Sequence[str]) -> Any:
    from pvc.compute.v1 import vm_pb2
    from shell.spec import equipped

    vm = vm_pb2.Vm(spec=_spec_in(given["spec"])) if given["spec"] else vm_pb2.Vm()
    put(vm, "vm", given)
    return equipped(vm, disks, networks)


def _spec_in(file: str) -> Any:
    """The spec of the VM in a file, whatever its name. Raises UsageError."""
    from shell.commands.applying import read

    (document, *more) = read([file])
    if more or document.kind.path != "vms":
        raise click.UsageError(f"{file} must hold one VM (it has {document.name})")
    return document.message.spec


def _created(session: Any, name: str, given: dict[str, Any], extra: dict[str, Any]) -> Any:
    for option in ("user_data", "meta_data", "network_data", "root_size", "pool"):
        if given[option]:
            raise click.UsageError(f"--{option.replace('_', '-')} goes with --image")
    spec = _new_vm(given, given["disk"], given["network"]).spec
    labels = dict(given["label"])
    return session.cluster.vms.create(name, spec, start=given["start"], labels=labels, **extra)


def _provisioned(session: Any, name: str, given: dict[str, Any], extra: dict[str, Any]) -> Any:
    from pvc.provisioner.v1.image_pb2 import CloudInit

    if given["disk"]:
        raise click.UsageError("--disk goes without --image; attach further disks afterwards")
    if given["label"]:
        raise click.UsageError("--label goes without --image")
    first, *more = given["network"] or [""]
    spec = _new_vm(given, [], [first, *more] if more else []).spec
    if spec.nics and not more and first:
        raise click.UsageError("--network goes without interfaces in --spec")
    seed = CloudInit(
        user_data=_text(given["user_data"]),
        meta_data=_text(given["meta_data"]),
        network_data=_text(given["network_data"]),
    )
    return session.cluster.vms.provision(
        name,
        given["image"],
        spec=spec,
        pool=given["pool"] or "",
        root_size_bytes=given["root_size"] or 0,
        network=first,
        cloud_init=seed if seed.ByteSize() else None,
        start=given["start"],
        **extra,
    )


@command(
    vm,
    "define",
    "pvc vm define web.xml",
    "virsh dumpxml web | pvc vm define - --volume vda=local/web-root --network br0=default",
)
@click.argument("xml", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@field("ImportVmRequest.vm_id", "--name", help="The VM's name; the domain's own without it.")
@click.option("--volume", multiple=True, type=Pair(), help="Volume for a disk: vda=POOL/VOLUME.")
@click.option("--network", multiple=True, type=Pair(), help="Network for a bridge: br0=default.")
@answer_option
@dry_run_option
def define(
    session: Any,
    xml: str,
    name: str | None,
    volume: tuple[tuple[str, str], ...],
    network: tuple[tuple[str, str], ...],
    dry_run: bool,
    shown: str,
) -> None:
    """Make a VM from libvirt domain XML."""
    answer = session.cluster.vms.import_xml(
        _text(xml), name or "", volumes=dict(volume), networks=dict(network),
        **options(dry_run=dry_run),
    )  # fmt: skip
    for warning in answer.warnings:
        click.echo(f"left out: {warning}", err=True)
    made = "would be made" if dry_run else "is made"
    tell(session, shown, answer.vm, f"vm {columns.ids(answer.vm.name)} {made}")


@command(
    vm,
    "modify",
    "pvc vm modify web --memory 2G --vcpus 4",
    "pvc vm modify web --add-tag prod --label owner=ann",
    "pvc vm modify web web.yaml",
)
@name_argument("vms")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@shape_options
@place_options
@field("vm.spec.tags", "--tag", multiple=True, help="All its tags, instead of those it has.")
@label_option
@click.option("--add-tag", multiple=True, help="One more tag.")
@click.option("--remove-tag", multiple=True, help="A tag less.")
@click.option("--remove-label", multiple=True, metavar="KEY", help="A label less.")
@waiting_options
@yes_option
def modify(
    session: Any, name: str, file: str | None, wait: Any, dry_run: bool, yes: bool, **given: Any
) -> None:
    """Change a VM; live where the guest can, else at its next start.

    With a FILE, as pvc vm export prints it, what differs is shown and asked for first.
    """
    if file is not None:
        if any(value not in (None, ()) for value in given.values()):
            raise click.UsageError("give a FILE, or options; not both")
        from shell.commands.editing import as_in_file

        as_in_file(session, "vms", name, file, yes=yes, wait=wait, dry_run=dry_run)
        return
    pending = amended(lambda: _modified(session, name, dict(given), options(dry_run=dry_run)))
    if dry_run:
        show_plan(pending, format_of(wait))
        return
    after = finish(session, pending, f"vm {name} is changed", wait=wait)
    if after is not None and after.status.pending_restart:
        waits = ", ".join(after.status.pending_restart)
        click.echo(f"waits for the next start: {waits} (pvc vm reboot {name})", err=True)


def _modified(session: Any, name: str, given: dict[str, Any], extra: dict[str, Any]) -> Any:
    from shell.spec import retagged

    found = session.cluster.vms.get(name)
    tag, add, remove = (given.pop(key) for key in ("tag", "add_tag", "remove_tag"))
    if tag or add or remove:
        given["tag"] = retagged(tag or found.spec.tags, add, remove)
    unlabelled = given.pop("remove_label")
    paths = put(found, "vm", given)
    for key in unlabelled:
        found.meta.labels.pop(key, None)
    if unlabelled and "meta.labels" not in paths:
        paths.append("meta.labels")
    nothing_given(paths)
    return session.cluster.vms.update(found, paths, **extra)


@command(vm, "rename", "pvc vm rename web www")
@name_argument("vms")
@argument("RenameVmRequest.new_vm_id", "new")
@waiting_options
def rename(session: Any, name: str, new: str, wait: bool, dry_run: bool) -> None:
    """Give a VM that is off another name. Its volumes keep theirs."""
    act(
        session,
        [name],
        lambda n: session.cluster.vms.rename(n, new, **options(dry_run=dry_run)),
        f"vm {{}} is {new} now",
        wait=wait,
        dry_run=dry_run,
    )


@command(vm, "clone", "pvc vm clone web web2 --start")
@name_argument("vms")
@argument("CloneVmRequest.vm_id", "new")
@click.option("--start", is_flag=True, help="Start the clone.")
@waiting_options
def clone(session: Any, name: str, new: str, start: bool, wait: bool, dry_run: bool) -> None:
    """Make a new VM with copies of the volumes of one that is off."""
    extra = options(dry_run=dry_run)
    act(
        session,
        [name],
        lambda n: session.cluster.vms.clone(n, new, start=start, **extra),
        f"vm {new} is made",
        wait=wait,
        dry_run=dry_run,
    )


@command(vm, "dump", "pvc vm dump web > web.xml")
@name_argument("vms")
def dump(session: Any, name: str) -> None:
    """Print the libvirt domain XML that the VM is on its node."""
    click.echo(session.cluster.vms.domain_xml(name), nl=False)


@command(vm, "console", "pvc vm console web", "pvc vm console web --force")
@name_argument("vms")
@click.option("--force", is_flag=True, help="Take it over from whoever has it.")
def console(session: Any, name: str, force: bool) -> None:
    """Attach to the serial console. Ctrl-] leaves it."""
    from shell.terminal import attach

    click.echo(f"console of {name}; Ctrl-] leaves it", err=True)
    with session.cluster.vms.console(name, force=force) as opened:
        attach(opened)
    click.echo(f"\nleft the console of {name}", err=True)


@command(vm, "log", "pvc vm log web -l 50", "pvc vm log web -f")
@name_argument("vms")
@click.option("-l", "--lines", type=click.IntRange(1), help="How many. [default: 1000; 10 with -f]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
def log(session: Any, name: str, lines: int | None, follow: bool) -> None:
    """Print what the guest wrote to its serial console."""
    from shell.terminal import tamed

    stdout = sys.stdout.buffer
    number = lines or (10 if follow else 1000)
    for piece in session.cluster.vms.console_log(name, number, follow=follow):
        stdout.write(tamed(piece))
        stdout.flush()


add_power(vm)
add_removal(vm)
add_edit(vm, "vms", "vms", "web")
add_export(vm, "vms", "vms", "web")
add_wait(vm, "vms", "vms", "web")
add_places(vm)
