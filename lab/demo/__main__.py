"""`make demo` and `make demo-stop`."""

from __future__ import annotations

import os
import sys

from lab.demo.machine import Machine
from lab.demo.screen import Screen
from lab.demo.story import VM, Story
from services.pvcd.init import init
from services.pvcd.remove import remove


def main() -> int:
    """Runs or ends the demo; the exit status."""
    if os.geteuid() != 0:
        sudo = ["sudo", sys.executable, "-m", "lab.demo", *sys.argv[1:]]
        os.execvp(sudo[0], sudo)
    machine, screen = Machine(), Screen()
    return stop(machine, screen) if "--stop" in sys.argv[1:] else start(machine, screen)


def start(machine: Machine, screen: Screen) -> int:
    """Starts PVC, tells the story, says how to go on."""
    if not machine.running():
        machine.configure()
        begun = init(machine.config)
        screen.say("init", f"pvc cluster init --config {machine.config}")
        screen.say("", f"admin's token: {begun.token_file}")
    cluster = machine.start()
    screen.say("pvcd", f"all services in process {machine.running()}, log {machine.log}")
    Story(cluster, screen).tell()
    print(how_to_go_on(machine, screen.elapsed_s))
    return 0


def stop(machine: Machine, screen: Screen) -> int:
    """Ends pvcd, removes its VMs, networks and files, says what is left."""
    machine.stop()
    screen.say("pvcd", "ended")
    left = remove(machine.config) if machine.config.exists() else ()
    machine.forget()
    screen.say("removed", "VMs, libvirtd, networks and files" if not left else "; ".join(left))
    return 1 if left else 0


def how_to_go_on(machine: Machine, elapsed_s: float) -> str:
    """What the reader can do next."""
    connection = f"export PVC_CONNECTION={machine.address}"
    return f"""
Done in {elapsed_s:.0f} s. The machine keeps running. To go on (as root):

    {connection}
    .venv/bin/pvc vm list
    .venv/bin/pvc vm console {VM}          # Ctrl-] leaves
    .venv/bin/pvc-shell
    curl -H "Authorization: Bearer $(cat {machine.token_file})" http://127.0.0.1:7370/v1/vms
    make demo-stop                      # ends it and leaves nothing behind
"""


if __name__ == "__main__":
    sys.exit(main())
