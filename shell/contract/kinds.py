"""The kinds of things that a cluster keeps, and which methods make, change and get them. Read off
the contract: a message that is stored, and the requests that carry one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from shell.contract.methods import message_class, methods

FIRST = ("pools", "networks", "nodes", "pools/volumes", "vms")
"""What others refer to is made before them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing."""

    path: str
    """Its collections: "vms", "pools/volumes"."""
    message: Descriptor
    get: MethodDescriptor | None
    create: MethodDescriptor | None
    """Takes one as it is to be; None where things are made otherwise."""
    update: MethodDescriptor | None

    @property
    def word(self) -> str:
        """ "volume"."""
        return self.path.rpartition("/")[2].removesuffix("s")

    @property
    def rank(self) -> int:
        """Lower ones are made first."""
        return FIRST.index(self.path) if self.path in FIRST else len(FIRST)

    def new(self) -> Any:
        """An empty one."""
        return message_class(self.message)()


@cache
def kinds() -> Mapping[str, Kind]:
    """Path → kind, of all that are got by name."""
    found = {}
    for method in methods().values():
        message = method.output_type
        if method.name == f"Get{message.name}" and (path := stored_path(message)):
            made, changed = f"Create{message.name}", f"Update{message.name}"
            found[path] = Kind(path, message, method, _taking(made, message),
                               _taking(changed, message))  # fmt: skip
    return found


def stored_path(message: Descriptor) -> str:
    """Where such messages are kept; "" for those that are not."""
    from pvc.core.v1 import options_pb2

    return str(message.GetOptions().Extensions[options_pb2.stored].collection)


def _taking(name: str, message: Descriptor) -> MethodDescriptor | None:
    for method in methods().values():
        if method.name == name and carrier(method, message) is not None:
            return method
    return None


def carrier(method: MethodDescriptor, message: Descriptor) -> FieldDescriptor | None:
    """The field of the method's request that holds such a message."""
    fields = method.input_type.fields
    return next((field for field in fields if field.message_type is message), None)


def id_field(method: MethodDescriptor) -> str:
    """The field of a Create request that names what is made: "vm_id"."""
    fields = (field.name for field in method.input_type.fields)
    return next(name for name in fields if name.endswith("_id") and name != "request_id")


def kind_of(name: str) -> Kind | None:
    """The kind that a full name is one of: "pools/local/volumes/x"; None for a foreign one."""
    return kinds().get("/".join(name.split("/")[::2])) if name.count("/") % 2 else None


def kind_called(word: str) -> Kind | None:
    """The kind of that word: "vm", "vms", "volume"; None for a foreign one."""
    return next((kind for kind in kinds().values() if word in (kind.word, f"{kind.word}s")), None)
