"""Makes a VM, starts it, waits, and prints where it runs."""

from pvc.compute.v1.vm_pb2 import CpuSpec, MemorySpec, VmSpec
from pvc_client import Cluster

spec = VmSpec(cpu=CpuSpec(vcpus=1), memory=MemorySpec(memory_mib=128))

with Cluster.from_environment() as cluster:
    cluster.vms.create("hello", spec).result(timeout=60)
    vm = cluster.vms.start("hello").result(timeout=60)
    print(f"{vm.name} runs on {vm.status.node}")
