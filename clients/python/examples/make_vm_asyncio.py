"""Makes three VMs at once, starts each as soon as it is there, and prints where they run."""

import asyncio

from pvc.compute.v1.vm_pb2 import CpuSpec, MemorySpec, VmSpec
from pvc_client import AsyncCluster

SPEC = VmSpec(cpu=CpuSpec(vcpus=1), memory=MemorySpec(memory_mib=128))


async def make(cluster: AsyncCluster, name: str) -> None:
    await (await cluster.vms.create(name, SPEC)).result(timeout=60)
    vm = await (await cluster.vms.start(name)).result(timeout=60)
    print(f"{vm.name} runs on {vm.status.node}")


async def main() -> None:
    async with AsyncCluster.from_environment() as cluster, asyncio.TaskGroup() as group:
        for name in ("red", "green", "blue"):
            group.create_task(make(cluster, name))


asyncio.run(main())
