"""Prints every change of a VM's state, and ends when that VM is removed. Usage: watch.py VM"""

import asyncio
import sys

from pvc.compute.v1.vm_pb2 import VmState
from pvc.core.v1.meta_pb2 import CHANGE_KIND_DELETED
from pvc_client import AsyncCluster


async def main(name: str) -> None:
    async with AsyncCluster.from_environment() as cluster:
        before = ""
        async for change in cluster.vms.watch(filter=f'name = "vms/{name}"'):
            if change.kind == CHANGE_KIND_DELETED:
                print(f"{name} is gone")
                return
            if change.resource is not None:
                state = VmState.Name(change.resource.status.state).removeprefix("VM_STATE_")
                if state != before:
                    print(f"{name} is {state}")
                before = state


asyncio.run(main(sys.argv[1]))
