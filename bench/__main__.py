"""Everything that is measured, in one run: `python -m bench`."""

from __future__ import annotations

import sys
import time

from bench import doors, growth, idle, list_vms, memory, pvc_start, shell, start_vm, state, volume
from bench.figures import Line, environment, say, table
from bench.ground import Ground
from bench.programs import Measure

PARTS: dict[str, Measure] = {
    # In an order in which one PVC with a thousand VMs, or without, serves several.
    "pvc_start": pvc_start.measure,
    "shell": shell.measure,
    "start_vm": start_vm.measure,
    "volume": volume.measure,
    "memory": memory.measure,
    "list_vms": list_vms.measure,
    "idle": idle.measure,
    "doors": doors.measure,
    "growth": growth.measure,
}


def main() -> int:
    """Prints a table of each part, and at the end all of them once more as one."""
    began = time.monotonic()
    print(environment(), flush=True)
    lines: list[Line] = []
    with Ground() as ground:
        for name, measure in PARTS.items():
            say(f"{name}, {time.monotonic() - began:.0f} s after the start")
            lines += measure(ground)
    say(f"state, {time.monotonic() - began:.0f} s after the start")
    state.main()
    print(f"\n{table(lines)}\n\n{time.monotonic() - began:.0f} s in all; {environment()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
