"""Makes a VM from a libvirt domain's XML. Pure."""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import reason_pb2
from services.compute.core.edits import new_vm
from services.compute.core.requests import short
from services.compute.drivers.import_xml import import_xml
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import refuse
from services.mesh.validate import check_message
from services.state.store import Put, Snapshot


def import_vm(snapshot: Snapshot, request: api.ImportVmRequest, call: Call) -> Mutation:
    """A VM that is off, with what the domain says; what has no place in a spec is told."""
    found = import_xml(request.xml, dict(request.volumes), dict(request.networks))
    vm_id = request.vm_id or found.vm_id
    if not vm_id:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "the domain's name cannot be a VM's id (lower-case letters, digits and hyphens, up to "
            "63); give one",
            "vm_id",
        )
    check_message(found.spec, "xml")
    vm = new_vm(snapshot, call, vm_id, vm_pb2.Vm(spec=found.spec))
    told = rows.event(
        call.new_id(),
        call.now,
        vm.name,
        f"{short(vm.name)} imported",
        "; ".join(found.warnings),
        cause=call.caller,
    )
    response = api.ImportVmResponse(vm=vm, warnings=found.warnings)
    return Mutation((Put(vm), told), response)
