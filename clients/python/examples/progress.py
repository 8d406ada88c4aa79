"""Starts a VM and tells how far that is. Usage: progress.py VM"""

import sys

from pvc.core.v1.operation_pb2 import Operation
from pvc_client import Cluster, errors


def tell(operation: Operation) -> None:
    print(f"{operation.percent:3} %  {operation.stage}")


with Cluster.from_environment() as cluster:
    try:
        cluster.vms.start(sys.argv[1]).result(timeout=60, on_progress=tell)
    except errors.NotFound as error:
        sys.exit(f"{error}; there are: {', '.join(vm.name for vm in cluster.vms.list())}")
    except errors.Failed as error:
        sys.exit(f"it was tried and went wrong: {error}")
    except errors.Deadline as error:
        sys.exit(f"{error}; wait again with cluster.operations.pending({error.operation!r})")
