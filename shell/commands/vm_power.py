"""`pvc vm start` and its kin, and what takes VMs away. What loses something asks before, and names
what it hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from shell import columns
from shell.commands.losses import is_on, listed, vm_loss
from shell.commands.raw import amended
from shell.commands.several import Which, chosen, several
from shell.tree import command, options, stacked, waiting_options, yes_option
from shell.waiting import act

VERBS = (
    ("start", "vm {} runs", "Switch VMs on.", ""),
    ("shutdown", "vm {} is off", "Ask guests to shut down; cut them off if they do not.", ""),
    ("reboot", "vm {} runs again", "Restart guests cleanly; what waited for it takes effect.", ""),
    ("pause", "vm {} is paused", "Halt the processors; memory is kept.", ""),
    ("resume", "vm {} goes on", "Let paused VMs go on.", ""),
    ("stop", "vm {} is off", "Switch VMs off at once, like pulling the plug.",
     "Cut the power of {}? Guests lose what they have not written."),
    ("reset", "vm {} was reset", "Press the reset button.",
     "Reset {}? Guests lose what they have not written."),
)  # fmt: skip
"""Name, what is told in the end, help, the question before for what loses something."""


def add_power(vm: click.Group) -> None:
    """Adds the commands that switch VMs."""
    for name, done, help, ask in VERBS:
        _power(vm, name, done, help, ask)
    _disable(vm)


def _power(vm: click.Group, verb: str, done: str, help: str, ask: str) -> None:
    def switch(session: Any, which: Which, wait: Any, dry_run: bool, yes: bool = False) -> None:
        names = chosen(session, which, "vms", columns.VM)
        if ask and not dry_run:
            _confirm_power(session, names, ask, yes)
        begin = getattr(session.cluster.vms, verb)
        extra = options(dry_run=dry_run)
        act(session, names, lambda n: begin(n, **extra), done, wait=wait, dry_run=dry_run)

    examples = (f"pvc vm {verb} web", f"pvc vm {verb} web db --no-wait", f"pvc vm {verb} -g test")
    made: Any = stacked(
        command(vm, verb, *examples),
        several("vms", tags=True),
        waiting_options,
        *([yes_option] if ask else []),
    )(switch)
    made.help = help


def _confirm_power(session: Any, names: Sequence[str], ask: str, yes: bool) -> None:
    """Asks about those that run; of what is off nothing is lost."""
    if yes:
        return
    found = [session.cluster.vms.get(name) for name in names]
    running = [columns.last(vm.name) for vm in found if is_on(vm)]
    if running:
        session.confirm(ask.format(listed(running)), yes=False)


def _disable(vm: click.Group) -> None:
    @command(vm, "disable", "pvc vm disable web", "pvc vm disable web --force --yes")
    @several("vms", tags=True)
    @click.option("--force", is_flag=True, help="Cut the power instead of shutting down.")
    @waiting_options
    @yes_option
    def disable(
        session: Any, which: Which, force: bool, wait: Any, dry_run: bool, yes: bool
    ) -> None:
        """Switch VMs off and never start them by themselves again (--autostart undoes that)."""
        names = chosen(session, which, "vms", columns.VM)
        if force and not dry_run:
            ask = "Cut the power of {}? Guests lose what they have not written."
            _confirm_power(session, names, ask, yes)
        extra = options(dry_run=dry_run)
        vms = session.cluster.vms

        def begin(name: str) -> Any:  # first the wish: what dies in between stays off afterwards
            if not dry_run:
                amended(lambda: _never(session, name)).result()
            return (vms.stop if force else vms.shutdown)(name, **extra)

        act(session, names, begin, "vm {} is off and stays off", wait=wait, dry_run=dry_run)


def _never(session: Any, name: str) -> Any:
    from pvc.compute.v1 import vm_pb2

    found = session.cluster.vms.get(name)
    found.spec.autostart = vm_pb2.AUTOSTART_NEVER
    return session.cluster.vms.update(found, ["spec.autostart"])


def add_removal(vm: click.Group) -> None:
    """Adds the commands that take VMs away."""
    _removal(vm, "delete", False, "Remove VMs; their volumes stay unless --volumes is given.")
    _removal(vm, "remove", True, "Remove VMs and their volumes.")


def _removal(vm: click.Group, name: str, volumes: bool, help: str) -> None:
    """volumes: whether theirs go too, unless said otherwise."""

    @command(vm, name, f"pvc vm {name} web", f"pvc vm {name} web db --force --yes")
    @several("vms", tags=True)
    @click.option(
        "--volumes/--keep-volumes", default=volumes, show_default=True, help="Their volumes too."
    )
    @click.option("--force", is_flag=True, help="Switch them off first.")
    @waiting_options
    @yes_option
    def remove(
        session: Any, which: Which, volumes: bool, force: bool, wait: Any, dry_run: bool, yes: bool
    ) -> None:
        names = chosen(session, which, "vms", columns.VM)
        if not dry_run:
            found = [session.cluster.vms.get(name) for name in names]  # all are there, or nothing
            if not yes:
                loss = vm_loss(session, found, volumes)
                session.confirm(f"Remove {listed(names)}?{loss}", yes=False)
        extra = options(dry_run=dry_run) | {"delete_volumes": volumes, "force": force}
        delete = session.cluster.vms.delete
        begin = lambda n: delete(n, **extra)  # noqa: E731
        act(session, names, begin, "vm {} is gone", wait=wait, dry_run=dry_run)

    remove.help = help
