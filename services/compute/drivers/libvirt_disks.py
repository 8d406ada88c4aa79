"""Verbs on images that a running domain has open: only its emulator may touch them, as it holds
their locks. libvirt grows them; snapshots inside qcow2 files are asked of QEMU itself, since
libvirt's own would save the guest's memory too and keep records that PVC does not want.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import libvirt
import libvirt_qemu

from pvc.core.v1 import reason_pb2
from services.compute.drivers.libvirt import AGENT_SILENT, Libvirt
from services.mesh.errors import PvcError

FREEZE_S = 10
"""How long the guest's agent may take to freeze its file systems."""

log = logging.getLogger("pvc.libvirt")

Node = Mapping[str, Any]
"""A block node as QEMU's query-named-block-nodes describes it."""


class LibvirtDisks:
    """Implements OpenDisks on the same connection as the hypervisor verbs."""

    def __init__(self, hypervisor: Libvirt) -> None:
        self._hypervisor = hypervisor

    def resize(self, vm: str, path: str, size_bytes: int) -> None:
        """See OpenDisks. Raises INVALID_FIELD rather than cut off what the guest has written."""

        def act(domain: libvirt.virDomain) -> None:
            now = domain.blockInfo(path, 0)[0]
            if size_bytes < now:
                raise PvcError(
                    reason_pb2.REASON_INVALID_FIELD,
                    f"the disk has {now} bytes; it can only grow",
                    field="size_bytes",
                )
            if size_bytes > now:
                domain.blockResize(path, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

        self._hypervisor.on_domain("grow a disk of", vm, act)

    def snapshot(self, vm: str, paths: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        """See OpenDisks. Where all images have the snapshot already nothing is done."""

        def act(domain: libvirt.virDomain) -> bool:
            nodes = [_node(_nodes(domain), path) for path in paths]
            having = [snapshot_id in _snapshots(node) for node in nodes]
            if all(having):
                if quiesce:
                    # Whoever took it may have died before it thawed what it had frozen.
                    _asked(domain, lambda: domain.fsThaw(None, 0))
                return False
            if any(having):
                raise PvcError(
                    reason_pb2.REASON_ALREADY_EXISTS,
                    f"some disks of {vm} have a snapshot {snapshot_id} already; delete it first",
                )
            with _frozen(domain, quiesce) as frozen:
                _command(domain, "transaction", actions=[_taking(n, snapshot_id) for n in nodes])
            return frozen

        return self._hypervisor.on_domain("take a snapshot of", vm, act)

    def delete_snapshot(self, vm: str, path: str, snapshot_id: str) -> None:
        """See OpenDisks."""

        def act(domain: libvirt.virDomain) -> None:
            node = _node(_nodes(domain), path)
            if snapshot_id in _snapshots(node):
                name = node["node-name"]
                _command(
                    domain, "blockdev-snapshot-delete-internal-sync", device=name, name=snapshot_id
                )

        self._hypervisor.on_domain("delete a snapshot of", vm, act)


def _taking(node: Node, snapshot_id: str) -> dict[str, Any]:
    return {
        "type": "blockdev-snapshot-internal-sync",
        "data": {"device": node["node-name"], "name": snapshot_id},
    }


def _nodes(domain: libvirt.virDomain) -> Sequence[Node]:
    answer: Sequence[Node] = _command(domain, "query-named-block-nodes", flat=True)
    return answer


def _node(nodes: Sequence[Node], path: str) -> Node:
    """The node that is the disk's image: the format node that reads the file's own node.

    A format node's own `file` does not tell: for a copy on write it is a json: name of the whole
    chain. libvirt names the two of an image alike, "libvirt-2-storage" and "libvirt-2-format".
    """
    below = {n["node-name"] for n in nodes if n.get("file") == path and n["drv"] == "file"}
    wanted = {name.removesuffix("-storage") + "-format" for name in below}
    opened = [node for node in nodes if node["node-name"] in wanted]
    for node in opened:
        if node["drv"] == "qcow2":
            return node
    if opened:
        raise PvcError(
            reason_pb2.REASON_NOT_SUPPORTED,
            f"{path} is a {opened[0]['drv']} image; only qcow2 images hold snapshots",
        )
    raise PvcError(reason_pb2.REASON_NOT_FOUND, f"the domain does not have {path} open")


def _snapshots(node: Node) -> set[str]:
    return {snapshot["name"] for snapshot in node.get("image", {}).get("snapshots", ())}


@contextmanager
def _frozen(domain: libvirt.virDomain, wanted: bool) -> Iterator[bool]:
    """Freezes the guest's file systems if its agent answers, and thaws them whatever happens."""
    frozen = wanted and _asked(domain, lambda: domain.fsFreeze(None, 0))
    try:
        yield frozen
    finally:
        # A freeze whose answer came too late may have been done all the same.
        if wanted and not _asked(domain, lambda: domain.fsThaw(None, 0)) and frozen:
            log.error(
                "%s: its file systems could not be thawed; its agent is silent", domain.name()
            )


def _asked(domain: libvirt.virDomain, question: Callable[[], object]) -> bool:
    """Whether the agent did it."""
    try:
        domain.agentSetResponseTimeout(FREEZE_S, 0)
        question()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in AGENT_SILENT | {libvirt.VIR_ERR_INTERNAL_ERROR}:
            raise
        log.info("%s: %s", domain.name(), error)
        return False
    return True


def _command(domain: libvirt.virDomain, command: str, /, **arguments: Any) -> Any:
    """A QMP command's answer. Raises HYPERVISOR_FAILED with QEMU's words."""
    text = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))
    if "error" in answer:
        raise PvcError(
            reason_pb2.REASON_HYPERVISOR_FAILED,
            f"QEMU refused {command} for {domain.name()}: {answer['error']['desc']}",
        )
    return answer["return"]
