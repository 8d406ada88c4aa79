"""The workers of the compute service's jobs on virtual time: a job that waits stands still on a
strand of its own, and dies with its process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.compute.jobs import VmJobs
from services.mesh.jobs import Jobs
from tests.simulator.engine import Process


class StrandPool:
    """What Jobs asks of a ThreadPoolExecutor."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, work: Callable[..., None], *given: Any) -> None:
        """Begins the work soon."""
        engine, process = self._process.engine, self._process

        def begin() -> None:
            if process.alive:
                with engine.as_process(process):
                    engine.on_strand(lambda: work(*given))

        engine.after(0.0, begin)


def vm_jobs(process: Process, store: Any, clock: Any, node: str, hypervisor: Any) -> Jobs:
    """The compute service's jobs of a node. No VM here has volumes that go with it."""
    work = VmJobs(store, clock, node, hypervisor, None, None)  # type: ignore[arg-type]
    jobs = Jobs(store, clock, "compute", node, work.methods(), parallel=1)
    jobs._pool = StrandPool(process)  # type: ignore[assignment]
    return jobs
