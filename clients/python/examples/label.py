"""Gives a VM a label, whoever else changes it meanwhile. Usage: label.py VM KEY VALUE"""

import sys

from pvc_client import Cluster

vm, key, value = sys.argv[1:]
with Cluster.from_environment() as cluster:
    changed = cluster.vms.change(vm, lambda read: read.meta.labels.update({key: value}))
    print(dict(changed.result(timeout=60).meta.labels))
