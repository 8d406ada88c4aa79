"""Fixed rows of every kind, for golden files."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, operation_pb2
from pvc.gateway.v1 import audit_pb2, token_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_pb2
from shell import columns, node_columns
from shell.audit_columns import AUDIT

NOW = 1_800_000_000
META = f"""meta {{ uid: "01k5" etag: "42" labels {{ key: "owner" value: "ann" }}
          create_time {{ seconds: {NOW - 7300} }} }}"""

VMS = (
    f"""name: "vms/web" {META}
    spec {{ description: "the shop, with a text that is far too long for any table" tags: "prod"
      tags: "web" cpu {{ vcpus: 2 }} memory {{ memory_mib: 768 }} machine: "q35" firmware: 2
      disks {{ id: "root" volume: "pools/local/volumes/web-root" bus: 1 cache: 1 boot_order: 1 }}
      disks {{ id: "seed" device: 2 read_only: true }}
      nics {{ id: "net0" network: "networks/default" mac: "52:54:00:00:00:01" model: 1 }} }}
    decision {{ node: "nodes/n1" why: "the only node" }}
    status {{ state: 3 vcpus: 2 memory_mib: 768 accelerator: "tcg"
      start_time {{ seconds: {NOW - 190} }} pending_restart: "machine"
      guest {{ host_name: "web" os: "Debian GNU/Linux 12 (bookworm)"
        addresses: "10.64.0.10/24" }} }}
    """,
    f"""name: "vms/db" {META} spec {{ cpu {{ vcpus: 16 }} memory {{ memory_mib: 65536 }} }}
    decision {{ node: "nodes/n1" }}
    status {{ state: 6 why: "the emulator ended with signal 9" crashes: 3 }}""",
    f"""name: "vms/moving" {META} spec {{ cpu {{ vcpus: 1 }} memory {{ memory_mib: 4096 }}
      ha {{ policy: 1 priority: 900 start_after: "vms/db" start_after: "vms/dns" }}
      placement {{ nodes: "nodes/n1" nodes: "nodes/n2" node_rules {{ tag: "ssd" }}
        vm_rules {{ tag: "replica" apart: true required: true }} }} }}
    decision {{ node: "nodes/n1" home: "nodes/n1" migration {{ id: "a" target: "nodes/n2" }}
      last_move: "migrated n3 → n1 in 1.2 s, pause 45 ms" }}
    status {{ state: 3 memory_mib: 4096 migration {{ id: "a" phase: 2 remaining_bytes: 1288490188
      total_bytes: 4294967296 dirty_bytes_per_s: 10485760 copied_bytes_per_s: 115343360
      remaining_s: 12 }} }}""",
    """name: "vms/new" spec { cpu { vcpus: 1 } memory { memory_mib: 1536 } }""",
    """name: "vms/hostile" spec { tags: "\\033[2Jcleared" description: "a\\nb\\342\\200\\256c" }
    status { state: 1 guest { os: "\\033]0;title\\007" addresses: "漢字漢字" } }""",
)


def parsed(kind: type[Message], *texts: str) -> list[Any]:
    return [text_format.Parse(text, kind()) for text in texts]


AROUND = node_columns.around(
    "nodes/n1",
    parsed(
        vm_pb2.Vm,
        'decision { node: "nodes/n1" power: 3 } spec { memory { memory_mib: 1024 } }',
        'decision { node: "nodes/n1" power: 3 } spec { memory { max_memory_mib: 4096 } }',
        'decision { node: "nodes/n1" power: 2 } spec { memory { memory_mib: 8192 } }',
        'decision { node: "nodes/n2" power: 3 } spec { memory { memory_mib: 2048 } }',
    ),
)

ROWS: dict[str, tuple[list[Any], Any]] = {
    "vm": (parsed(vm_pb2.Vm, *VMS), columns.VM),
    "volume": (
        parsed(
            storage_pb2.Volume,
            f"""name: "pools/local/volumes/web-root" {META} spec {{ format: 1 }}
            status {{ state: 2 size_bytes: 21474836480 allocated_bytes: 734003200
              parent: "pools/local/volumes/image-debian-12" node: "nodes/n1" path: "/srv/x" }}""",
            """name: "pools/local/volumes/bad" spec { size_bytes: 1048576 }
            status { state: 4 why: "the file is gone" }""",
        ),
        columns.VOLUME,
    ),
    "pool": (
        parsed(
            storage_pb2.Pool,
            f"""name: "pools/local" {META} spec {{ directory {{ path: "/var/lib/pvc/pools/local" }}
              node: "nodes/n1" reserve_bytes: 1073741824 }}
            status {{ state: 1 capacity_bytes: 500000000000 available_bytes: 123456789012
              promised_bytes: 21474836480 }}""",
        ),
        columns.POOL,
    ),
    "network": (
        parsed(
            network_pb2.Network,
            f"""name: "networks/default" {META} spec {{ nat: true domain: "default.pvc" mtu: 1500
              ipv4 {{ cidr: "10.64.0.0/24" gateway: "10.64.0.1" }} }}
            status {{ state: 1 bridge: "pvc-default" addresses {{ vm: "vms/web" nic: "net0"
              mac: "52:54:00:00:00:01" address: "10.64.0.10" host_name: "web.default.pvc" }} }}""",
        ),
        columns.NETWORK,
    ),
    "image": (
        parsed(
            image_pb2.Image,
            f"""name: "images/debian-12" {META} spec {{ pool: "pools/local" }}
            status {{ state: 2 size_bytes: 2147483648 origin: "recipe debian-12" }}""",
        ),
        columns.IMAGE,
    ),
    "node": (
        parsed(
            cluster_pb2.Node,
            f"""name: "nodes/n1" {META} decision {{ state: 1 fences: 1
              state_time {{ seconds: {NOW - 86400} }}
              controller {{ trusted: true time {{ seconds: {NOW - 120} }} }}
              proof {{ means: 1 text: "the controller says that it is off" session: "0x1"
                time {{ seconds: {NOW - 90000} }} given_by: "coordinator n2" }} }}
            spec {{ coordinator: true address: "10.0.0.1" tags: "ssd" max_vms: 40
              power_control {{ protocol: 1 address: "https://bmc-n1.example.org" user: "root" }} }}
            status {{ version: "2.0.0" cpus: 8 memory_mib: 32000 memory_for_vms_mib: 30000
              accelerator: "tcg" accelerator_why: "/dev/kvm is missing" emulator_version: "7.2.22"
              libvirt_version: "9.0.0" kernel: "6.1.0" faults: "the clock is off by 3 s"
              load {{ load_percent: 150 available_memory_mib: 20000 }}
              watchdog {{ armed: true device: "/dev/watchdog" timeout {{ seconds: 3 }} }}
              services {{ service: "compute" address: "127.0.0.1:7001" }} }}""",
            f"""name: "nodes/n2" {META} spec {{ coordinator: true address: "10.0.0.2" }}
            decision {{ state: 4 why: "its session ended 4 s ago" lost_session: "0x2"
              attempts {{ means: 1 tries: 3 why: "no answer within 3 s" }}
              attempts {{ means: 3 impossible: true why: "it has no watchdog" }} }}
            status {{ version: "2.0.0" cpus: 8 memory_for_vms_mib: 30000 }}""",
            """name: "nodes/n3" spec { address: "10.0.0.3" }
            decision { state: 3 why: "its machine has not joined yet" }""",
            """name: "nodes/n4" spec { address: "10.0.0.4" }
            decision { state: 5 why: "proven dead" power_on { tries: 2 answered: 2 ended: true
              why: "it was fenced 3 times within 24 hours: pvc node ready n4" } }""",
        ),
        node_columns.columns(AROUND),
    ),
    "operation": (
        parsed(
            operation_pb2.Operation,
            f"""name: "operations/01k5f3" {META} method: "pvc.compute.v1.VmService/StartVm"
            target: "vms/web" state: 2 percent: 60 stage: "starting the emulator" attempts: 1
            caller: "token ann" start_time {{ seconds: {NOW - 3} }}
            log {{ time {{ seconds: {NOW - 2} }} text: "choosing a node" }}""",
            """name: "operations/01k5f4" method: "pvc.storage.v1.StorageService/CreateVolume"
            target: "pools/local/volumes/x" state: 4 percent: 10
            error { code: 8 message: "the pool local has 3 GiB left, and 20 GiB were asked for"
            }""",
        ),
        columns.OPERATION,
    ),
    "event": (
        parsed(
            event_pb2.Event,
            f"""name: "events/1" time {{ seconds: {NOW} }} severity: 3 subject: "vms/db"
            message: "vm db RUNNING → CRASHED" why: "the emulator ended with signal 9"
            cause: "compute n1" """,
        ),
        columns.EVENT,
    ),
    "token": (
        parsed(
            token_pb2.Token,
            f"""name: "tokens/ann" {META} role: 2 expire_time {{ seconds: {NOW} }}
            last_used {{ time {{ seconds: {NOW - 7200} }} address: "10.0.0.7"
              node: "nodes/n1" }}""",
            """name: "tokens/ci" role: 1 description: "Builds" """,
        ),
        columns.TOKEN,
    ),
    "audit": (
        parsed(
            audit_pb2.AuditEntry,
            f"""name: "auditEntries/1" time {{ seconds: {NOW} }} caller: "token ann" role: 2
            token: "tokens/ann" peer: "10.0.0.7:40312" door: DOOR_REST node: "nodes/n1"
            method: "pvc.compute.v1.VmService/StartVm" target: "vms/web" request_id: "r1"
            operation: "operations/2" outcome: OUTCOME_SUCCEEDED count: 1
            duration {{ nanos: 12000000 }}""",
            f"""name: "auditEntries/2" time {{ seconds: {NOW} }} caller: "local root" role: 3
            door: DOOR_SOCKET node: "nodes/n1" method: "pvc.compute.v1.VmService/DeleteVm"
            target: "vms/web" validate_only: true outcome: OUTCOME_FAILED reason: "WRONG_STATE"
            message: "vms/web is running; stop it first" count: 1 duration {{ seconds: 2 }}""",
            f"""name: "auditEntries/3" time {{ seconds: {NOW} }} caller: "nobody" door: DOOR_GRPC
            peer: "10.0.0.66" node: "nodes/n2" outcome: OUTCOME_REFUSED count: 412
            reason: "UNAUTHENTICATED" message: "the token is not valid"
            last_time {{ seconds: {NOW + 59} }} duration {{}}""",
            f"""name: "auditEntries/4" time {{ seconds: {NOW} }} caller: "token bob" role: 2
            token: "tokens/bob" peer: "[::1]:9" door: DOOR_GRPC node: "nodes/n1" count: 1
            method: "pvc.compute.v1.VmService/AttachConsole" target: "vms/db"
            outcome: OUTCOME_RUNNING""",
        ),
        AUDIT,
    ),
    "cluster": (
        parsed(
            cluster_pb2.Cluster,
            """name: "lab" version: "2.0.0" leader: "nodes/n1" health: 2
            faults: "vm db is crashed" nodes { key: "ONLINE" value: 1 }
            vms { key: "RUNNING" value: 12 } vms { key: "CRASHED" value: 1 }
            memory_mib: 32000 memory_promised_mib: 9984 cpus: 8 vcpus_promised: 26 volumes: 14
            spec { maintenance: true reserve_nodes: 1 } memory_reserved_mib: 8192
            memory_free_mib: -512""",
        ),
        columns.CLUSTER,
    ),
}
