"""PVC for Python programs: `Cluster("host:port", token=…).vms.start("web").result(timeout=60)`,
and the same for asyncio with AsyncCluster.

Needs only grpc and protobuf. What goes wrong is raised as one of the classes of
`pvc_client.errors`. Each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc_client import errors
    from pvc_client.addresses import LOCAL_SOCKET
    from pvc_client.aio.cluster import AsyncCluster
    from pvc_client.aio.console import AsyncConsole
    from pvc_client.aio.operations import AsyncPending
    from pvc_client.aio.resources import AsyncChanges, AsyncPages
    from pvc_client.cluster import Cluster
    from pvc_client.console import Console
    from pvc_client.contract import Change
    from pvc_client.errors import PvcError
    from pvc_client.operations import Pending
    from pvc_client.resources import Changes, Pages

__all__ = [
    "LOCAL_SOCKET",
    "AsyncChanges",
    "AsyncCluster",
    "AsyncConsole",
    "AsyncPages",
    "AsyncPending",
    "Change",
    "Changes",
    "Cluster",
    "Console",
    "Pages",
    "Pending",
    "PvcError",
    "errors",
]

_HOMES = {
    "LOCAL_SOCKET": "addresses",
    "AsyncChanges": "aio.resources",
    "AsyncCluster": "aio.cluster",
    "AsyncConsole": "aio.console",
    "AsyncPages": "aio.resources",
    "AsyncPending": "aio.operations",
    "Change": "contract",
    "Changes": "resources",
    "Cluster": "cluster",
    "Console": "console",
    "Pages": "resources",
    "Pending": "operations",
    "PvcError": "errors",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module(f"{__name__}.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
