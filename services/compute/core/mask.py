"""Which fields an update takes over. Pure."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.mesh.errors import refuse

WHERE = "update_mask"
_TOP = ("spec", "meta.labels")
_SEALED = frozenset({"spec.power", "spec.power_request"})


def paths_to_take(vm: vm_pb2.Vm, mask: FieldMask) -> list[str]:
    """The paths of the mask; those that are set in the VM's spec when it is empty. Raises
    INVALID_FIELD for a path that is unknown, or that is not the user's to write."""
    if not mask.paths:
        return _set_paths(vm)
    paths = [path for given in mask.paths for path in (_TOP if given == "*" else (given,))]
    for path in paths:
        check_path(path)
    return [deep for path in paths for deep in (_spec_paths() if path == "spec" else (path,))]


def check_path(path: str) -> None:
    """Raises INVALID_FIELD unless an update may take this over."""
    known = any(path == top or path.startswith(f"{top}.") for top in _TOP)
    if not known or path in _SEALED or path.startswith("meta.labels."):
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{path!r} cannot be updated; what can is spec (but for spec.power, which starting and "
            "stopping change) and meta.labels as a whole",
            WHERE,
        )
    _resolve(vm_pb2.Vm.DESCRIPTOR, path)


def _resolve(kind: Descriptor, path: str) -> None:
    message: Descriptor | None = kind
    names = path.split(".")
    for place, name in enumerate(names):
        field = message.fields_by_name.get(name) if message is not None else None
        if field is None:
            known = ", ".join(message.fields_by_name) if message is not None else "none"
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{path!r}: {'.'.join(names[:place]) or 'a VM'} has no field {name!r}; "
                f"it has: {known}",
                WHERE,
            )
        message = field.message_type
        if _is_list(field) and place < len(names) - 1:
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{path!r}: {name} is taken over as a whole; leave out what follows it",
                WHERE,
            )


def _set_paths(vm: vm_pb2.Vm) -> list[str]:
    """Field by field of the spec, as deep as messages go, so that what is left out keeps what it
    was."""
    paths: list[str] = []
    for field, value in vm.spec.ListFields():
        if field.message_type is not None and not _is_list(field):
            paths += [f"spec.{field.name}.{inner.name}" for inner, _ in value.ListFields()]
        else:
            paths.append(f"spec.{field.name}")
    if vm.meta.labels:
        paths.append("meta.labels")
    return [path for path in paths if path not in _SEALED]


def _spec_paths() -> list[str]:
    return [
        path for name in vm_pb2.VmSpec.DESCRIPTOR.fields_by_name
        if (path := f"spec.{name}") not in _SEALED
    ]  # fmt: skip


def _is_list(field: Any) -> bool:
    return bool(field.is_repeated)
