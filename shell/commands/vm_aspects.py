"""`pvc vm tag`, `vcpu` and `memory`: one side of a VM at a time, under the names PVC has always
had for them."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.fields import MIB, argument, field, put
from shell.commands.raw import amended
from shell.measures import mebibytes, size
from shell.render import Column, Output
from shell.tree import (
    Group,
    Size,
    command,
    format_option,
    name_argument,
    options,
    waiting_options,
)
from shell.waiting import finish, format_of, show_plan


@click.group(cls=Group, aliases={"list": "get"})
def tag() -> None:
    """The words that a VM is found and grouped by."""


@click.group(cls=Group)
def vcpu() -> None:
    """A VM's processors."""


@click.group(cls=Group)
def memory() -> None:
    """A VM's memory."""


def _changed(session: Any, name: str, done: str, change: Any, *, wait: Any, dry_run: bool) -> None:
    """Reads a VM, lets it be changed, sends what was changed. change: gives the paths."""

    def tried() -> Any:
        found = session.cluster.vms.get(name)
        paths = change(found)
        return session.cluster.vms.update(found, paths, **options(dry_run=dry_run)) if paths else 0

    pending = amended(tried)
    if not pending:
        click.echo(f"{done} already")
    elif dry_run:
        show_plan(pending, format_of(wait))
    else:
        after = finish(session, pending, done, wait=wait)
        if after is not None and after.status.pending_restart:
            waits = ", ".join(after.status.pending_restart)
            click.echo(f"waits for the next start: {waits} (pvc vm reboot {name})", err=True)


@command(tag, "get", "pvc vm tag get web")
@name_argument("vms")
def tag_get(session: Any, name: str) -> None:
    """Print a VM's tags, one in a line."""
    for one in session.cluster.vms.get(name).spec.tags:
        click.echo(one)


@command(tag, "add", "pvc vm tag add web prod")
@name_argument("vms")
@argument("vm.spec.tags", "tags", nargs=-1, required=True)
@waiting_options
def tag_add(session: Any, name: str, tags: tuple[str, ...], wait: Any, dry_run: bool) -> None:
    """Give a VM further tags."""

    def change(vm: Any) -> list[str]:
        more = [one for one in dict.fromkeys(tags) if one not in vm.spec.tags]
        vm.spec.tags.extend(more)
        return ["spec.tags"] if more else []

    _changed(session, name, f"vm {name} has {', '.join(tags)}", change, wait=wait, dry_run=dry_run)


@command(tag, "remove", "pvc vm tag remove web prod")
@name_argument("vms")
@argument("vm.spec.tags", "tags", nargs=-1, required=True)
@waiting_options
def tag_remove(session: Any, name: str, tags: tuple[str, ...], wait: Any, dry_run: bool) -> None:
    """Take tags from a VM."""

    def change(vm: Any) -> list[str]:
        kept = [one for one in vm.spec.tags if one not in tags]
        fewer = len(kept) < len(vm.spec.tags)
        vm.spec.tags[:] = kept
        return ["spec.tags"] if fewer else []

    done = f"vm {name} does not have {', '.join(tags)}"
    _changed(session, name, done, change, wait=wait, dry_run=dry_run)


VCPU = (
    Column("NAME", lambda r, v: columns.last(r.name)),
    Column("NOW", lambda r, v: str(r.status.vcpus or ""), right=True),
    Column("CPUS", lambda r, v: str(r.spec.cpu.vcpus), right=True),
    Column("MOST", lambda r, v: str(r.spec.cpu.max_vcpus), right=True),
    Column("TOPOLOGY", lambda r, v: topology(r.spec.cpu)),
    Column("MODEL", lambda r, v: r.spec.cpu.model),
)
MEMORY = (
    Column("NAME", lambda r, v: columns.last(r.name)),
    Column("NOW", lambda r, v: mebibytes(r.status.memory_mib), right=True),
    Column("MEMORY", lambda r, v: mebibytes(r.spec.memory.memory_mib), right=True),
    Column("MOST", lambda r, v: mebibytes(r.spec.memory.max_memory_mib), right=True),
)


def topology(cpu: Any) -> str:
    """ "2 sockets × 4 cores × 1 threads"; "" when none is given."""
    parts = ("sockets", "cores", "threads")
    if not any(getattr(cpu, part) for part in parts):
        return ""
    return " × ".join(f"{getattr(cpu, part) or 1} {part}" for part in parts)


@command(vcpu, "get", "pvc vm vcpu get web")
@name_argument("vms")
@format_option
def vcpu_get(session: Any, name: str, format: Output) -> None:
    """Show a VM's processors."""
    session.show_one(session.cluster.vms.get(name), VCPU, format)


@command(vcpu, "set", "pvc vm vcpu set web 4", "pvc vm vcpu set web 8 --topology 2,4,1")
@name_argument("vms")
@argument("vm.spec.cpu.vcpus", "vcpus", type=int)
@click.option("-t", "--topology", "shape", metavar="S,C,T", help="Sockets, cores, threads.")
@field("vm.spec.cpu.max_vcpus", "--max", "max_vcpus", type=int, help="Most without a restart.")
@waiting_options
def vcpu_set(
    session: Any, name: str, vcpus: int, shape: str | None, max_vcpus: int | None, wait: Any,
    dry_run: bool,
) -> None:  # fmt: skip
    """Change how many processors a VM has."""
    parts = _shape(shape)
    command_, given = click.get_current_context().command, {"vcpus": vcpus, "max_vcpus": max_vcpus}

    def change(vm: Any) -> list[str]:
        paths = put(vm, "vm", given, command_)
        for part, number in parts.items():
            setattr(vm.spec.cpu, part, number)
        if max_vcpus is None and (vm.spec.cpu.max_vcpus < vcpus or parts):
            vm.spec.cpu.max_vcpus = vcpus
            paths.append("spec.cpu.max_vcpus")
        return paths + [f"spec.cpu.{part}" for part in parts]

    done = f"vm {name} has {vcpus} processors"
    _changed(session, name, done, change, wait=wait, dry_run=dry_run)


def _shape(text: str | None) -> dict[str, int]:
    """Raises BadParameter."""
    if text is None:
        return {}
    numbers = text.split(",")
    if len(numbers) != 3 or not all(one.isdigit() and int(one) for one in numbers):
        raise click.BadParameter(f"{text!r} must be sockets,cores,threads: 1,4,2",
                                 param_hint="--topology")  # fmt: skip
    return dict(zip(("sockets", "cores", "threads"), map(int, numbers), strict=True))


@command(memory, "get", "pvc vm memory get web")
@name_argument("vms")
@format_option
def memory_get(session: Any, name: str, format: Output) -> None:
    """Show a VM's memory."""
    session.show_one(session.cluster.vms.get(name), MEMORY, format)


@command(memory, "set", "pvc vm memory set web 4G", "pvc vm memory set web 2048 --max 8G")
@name_argument("vms")
@argument("vm.spec.memory.memory_mib", "memory", type=Size("M"), per=MIB)
@field("vm.spec.memory.max_memory_mib", "--max", "max_memory", type=Size("M"), per=MIB,
       help="Most without a restart.")  # fmt: skip
@waiting_options
def memory_set(
    session: Any, name: str, memory: int, max_memory: int | None, wait: Any, dry_run: bool
) -> None:
    """Change how much memory a VM has (a bare number: MiB)."""
    command_, given = click.get_current_context().command, {"memory": memory}

    def change(vm: Any) -> list[str]:
        most = max(memory, vm.spec.memory.max_memory_mib * MIB)
        raised = max_memory or (most if most > vm.spec.memory.max_memory_mib * MIB else None)
        return put(vm, "vm", given | {"max_memory": raised}, command_)

    done = f"vm {name} has {size(memory)} of memory"
    _changed(session, name, done, change, wait=wait, dry_run=dry_run)
