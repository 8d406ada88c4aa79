"""Giving orders to the chassis, and to the first process of a node: one line of JSON each way."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.cluster.site import Lab, LabError, Node

CHASSIS_TIMEOUT_S = 60.0
NODE_TIMEOUT_S = 10.0


def chassis(lab: Lab, verb: str, nodes: Sequence[str] = (), **more: object) -> dict[str, Any]:
    """Node → how it stands. nodes: all when empty. Raises LabError."""
    order = {"verb": verb, "nodes": list(nodes), **more}
    answer = _asked(lab.chassis_socket, order, CHASSIS_TIMEOUT_S, "the lab is down: lab/pvc-lab up")
    nodes_seen: dict[str, Any] = answer["nodes"]
    return nodes_seen


def services(node: Node, verb: str = "status", service: str = "") -> dict[str, Any]:
    """Service → how it stands. service: all when empty. Raises LabError."""
    order = {"verb": verb, "service": service}
    away = f"{node.name} is off, paused or gone: lab/pvc-lab status"
    found: dict[str, Any] = _asked(node.init_socket, order, NODE_TIMEOUT_S, away)["services"]
    return found


def answers(lab: Lab) -> bool:
    """There is a chassis."""
    try:
        chassis(lab, "status")
    except LabError:
        return False
    return True


def _asked(path: Path, order: object, timeout_s: float, away: str) -> dict[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(timeout_s)
            wire.connect(str(path))
            wire.sendall(json.dumps(order).encode() + b"\n")
            line = wire.makefile("rb").readline()
    except OSError as error:
        raise LabError(f"{away} ({error})") from error
    if not line:
        raise LabError(f"{path} hung up: {away}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise LabError(answer["error"])
    return answer
