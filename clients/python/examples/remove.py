"""Removes VMs, switched off or not, and says what became of each. Usage: remove.py VM…"""

import sys

from pvc_client import Cluster, PvcError

with Cluster.from_environment() as cluster:
    for name in sys.argv[1:]:
        try:
            cluster.vms.delete(name, force=True).result(timeout=60)
            print(f"{name} is gone")
        except PvcError as error:
            print(f"{name}: {error}")
