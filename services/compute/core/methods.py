"""Full names of the VM service's methods, as operations carry them."""

from __future__ import annotations

from pvc.compute.v1 import vm_service_pb2

_SERVICE = vm_service_pb2.DESCRIPTOR.services_by_name["VmService"]


def method(name: str) -> str:
    """ "StartVm" → "pvc.compute.v1.VmService/StartVm"; a name that the contract does not have is a
    mistake."""
    return f"{_SERVICE.full_name}/{_SERVICE.methods_by_name[name].name}"
