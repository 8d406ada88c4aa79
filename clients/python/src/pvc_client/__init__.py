"""PVC for Python programs: `Cluster("host:port", token=…).vms.start("web").result(timeout=60)`.

Needs only grpc and protobuf. What goes wrong is raised as one of the classes of
`pvc_client.errors`.
"""

from pvc_client import errors
from pvc_client.cluster import LOCAL_SOCKET, Cluster
from pvc_client.console import Console
from pvc_client.errors import PvcError
from pvc_client.operations import Pending
from pvc_client.resources import Change, Pages

__all__ = ["LOCAL_SOCKET", "Change", "Cluster", "Console", "Pages", "Pending", "PvcError", "errors"]
