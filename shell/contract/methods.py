"""Every method of every service, found in the generated package. Knows no command and no method by
name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor


@cache
def modules() -> tuple[Any, ...]:
    """The generated modules that hold services, those that are added later too."""
    import pvc

    return tuple(
        importlib.import_module(".".join(("pvc", *path.relative_to(root).with_suffix("").parts)))
        for root in map(Path, pvc.__path__)
        for path in sorted(root.rglob("*_service_pb2.py"))
    )


@cache
def methods() -> Mapping[str, MethodDescriptor]:
    """ "VmService/StartVm" → its descriptor: all that can be called from outside."""
    return {f"{one.containing_service.name}/{one.name}": one for one in _public()}


def _public() -> Iterator[MethodDescriptor]:
    from pvc.core.v1 import options_pb2

    for module in modules():
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if not method.GetOptions().Extensions[options_pb2.access].internal:
                    yield method


def message_class(kind: Descriptor) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(kind)
