"""Makes this machine a node of a cluster that expects it: its key, its certificate, its
configuration.

The key never leaves the machine. May be repeated: what broke off half-way goes on, with the same
key.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from services.coordinator.letting_in import read_token
from services.mesh import enrolment, identity
from services.mesh.calls import error_of
from services.mesh.clock import Clock, SystemClock
from services.mesh.config import DEFAULT_PATH, ENVIRONMENT, Config, load, parse
from services.mesh.errors import PvcError
from services.mesh.identity import LOCAL_NAMES, Files, write_private
from services.mesh.opening import database
from services.mesh.version import VERSION

ASK_S = 15.0
ELSEWHERE = frozenset(
    {
        reason_pb2.REASON_UNREACHABLE,
        reason_pb2.REASON_STORE_UNAVAILABLE,
        reason_pb2.REASON_DEADLINE,
        reason_pb2.REASON_RATE_LIMITED,
        reason_pb2.REASON_NOT_SUPPORTED,
        reason_pb2.REASON_INVALID_CONFIG,
        reason_pb2.REASON_INTERNAL,
    }
)
"""Reasons for which another door may do better."""
CREDENTIALS = "state.credentials"


@dataclass(frozen=True, slots=True)
class Joined:
    """What `join` made or found."""

    cluster: str
    node: str
    config: Path
    coordinator: bool
    made: tuple[str, ...]
    """Files that were not there before."""


def join(token: str, path: Path | None = None, clock: Clock | None = None) -> Joined:
    """Joins the cluster that the token tells of. Raises PvcError, before anything is changed where
    the machine is another cluster's, or its configuration does not fit."""
    told, clock = read_token(token), clock or SystemClock()
    file = path or Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)
    there = load(file) if file.exists() else None
    planned = there or parse(f'[node]\nname = "{_id(told)}"\n', str(file))
    _check_begin(told, planned, file)
    if not _is_done(told, planned, clock):
        return _join(told, there, planned, file)
    return _joined(told, planned, file, ())


def _join(told: api.JoinToken, there: Config | None, planned: Config, file: Path) -> Joined:
    key = enrolment.pending_key(planned.tls_dir)
    answer = _asked(told, enrolment.request_for(key, _id(told)))
    _check_answer(told, answer)
    made = [] if there is not None else [str(file)]
    credentials = Path(planned.node.state_dir) / CREDENTIALS
    if answer.state_credentials and not planned.state.credentials_file:
        write_private(credentials, f"{answer.state_credentials}\n".encode())
        made.append(str(credentials))
    text = config_text(told, answer, credentials)
    if there is None:
        write_private(file, text.encode())
    else:
        _check_config(parse(text, "the cluster"), there, file)
    enrolment.keep(
        planned.tls_dir,
        key,
        answer.certificate,
        answer.authority,
        authority_key=answer.authority_key,
        cluster_key=answer.cluster_key,
    )
    return _joined(told, load(file), file, (*made, str(planned.tls_dir)))


def _joined(told: api.JoinToken, config: Config, file: Path, made: tuple[str, ...]) -> Joined:
    coordinator = (config.tls_dir / "ca.key").exists()
    return Joined(told.cluster, told.name, file, coordinator, made)


def _id(told: api.JoinToken) -> str:
    return told.name.removeprefix("nodes/")


def _check_begin(told: api.JoinToken, config: Config, file: Path) -> None:
    """Raises INVALID_CONFIG where this machine cannot be that node."""
    wrong = [
        f"{key} is {has!r} and not {wanted!r}"
        for key, has, wanted in (
            ("node.name", config.node.name, _id(told)),
            ("cluster.name", config.cluster.name, told.cluster),
        )
        if has != wanted and file.exists()
    ]
    if wrong:
        raise _invalid(f"the token does not fit {file}: {'; '.join(wrong)}")
    if database(config).exists():
        raise _invalid(
            f"{config.node.state_dir} holds a cluster of this machine's own; take that off first"
        )
    authority = config.tls_dir / "ca.crt"
    if authority.exists() and _der(authority.read_bytes()) != told.authority:
        raise _invalid(
            f"{authority} is another cluster's: this machine belongs to that; take PVC off it "
            "first, or name another mesh.tls_dir"
        )


def _is_done(told: api.JoinToken, config: Config, clock: Clock) -> bool:
    """Whether this machine has joined already, all the way."""
    folder = config.tls_dir
    if not (folder / "node.crt").exists() or (folder / enrolment.PENDING_KEY).exists():
        return False
    _, certificate, _ = Files(folder).checked(clock.now())
    return identity.node_of(certificate) == told.name


def _asked(told: api.JoinToken, request: str) -> api.JoinNodeResponse:
    """What the first door answers that can. Raises what a door refuses for good; UNREACHABLE with
    what each said when none could."""
    root = _pem(told.authority)
    asking = api.JoinNodeRequest(
        name=told.name, secret=told.secret, certificate_request=request, version=VERSION
    )
    said = []
    for door in told.doors:
        credentials = grpc.ssl_channel_credentials(root)
        options = (("grpc.enable_http_proxy", 0),)
        with grpc.secure_channel(door, credentials, options=options) as channel:
            stub: Any = api_grpc.NodeServiceStub(channel)
            try:
                answer: api.JoinNodeResponse = stub.JoinNode(asking, timeout=ASK_S)
                return answer
            except grpc.RpcError as failed:
                error = error_of(failed)
                if error.reason not in ELSEWHERE:
                    raise error from failed
                said.append(f"{door}: {error.message}")
    raise PvcError(
        reason_pb2.REASON_UNREACHABLE,
        f"no door of the cluster could let this machine in; {'; '.join(said)}. Try again",
    )


def _check_answer(told: api.JoinToken, answer: api.JoinNodeResponse) -> None:
    if _der(answer.authority.encode()) != told.authority:
        raise _invalid("the answer comes from another authority than the token names; ask anew")


def config_text(told: api.JoinToken, answer: api.JoinNodeResponse, credentials: Path) -> str:
    """The configuration of the new node. credentials: where those for the state are kept."""
    address = address_in(answer.certificate)
    host = f"[{address}]" if ":" in address else address
    hosts = ", ".join(f'"{one}"' for one in answer.state_hosts)
    lines = [
        "# Made by 'pvc cluster join'. All settings are explained in docs/pvc.toml.",
        *("[node]", f'name = "{_id(told)}"', ""),
        *("[cluster]", f'name = "{answer.cluster}"', ""),
        *("[state]", 'driver = "zookeeper"', f"hosts = [{hosts}]"),
        f"session_timeout_s = {answer.state_session_timeout_s}",
        f"tick_ms = {answer.state_tick_ms}",
        *([f'credentials_file = "{credentials}"'] if answer.state_credentials else []),
        *([f"tls = {str(answer.state_tls).lower()}", ""]),
        *("[mesh]", f'listen = "{address}"', f"first_port = {answer.first_port}", ""),
        *("[gateway]", f'grpc_listen = "{host}:7371"', f'rest_listen = "{host}:7370"', ""),
    ]
    return "\n".join(lines)


def address_in(certificate: str) -> str:
    """The address that a node was added with, as an IP address. Raises INVALID_CONFIG."""
    name, names = identity.names_of(x509.load_pem_x509_certificate(certificate.encode()))
    (given, *_) = [one for one in names if one not in (name, *LOCAL_NAMES)] or [name]
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        pass
    try:
        return socket.gethostbyname(given)
    except OSError as error:
        raise _invalid(f"the node was added at {given}, which has no address: {error}") from error


def _check_config(wanted: Config, there: Config, file: Path) -> None:
    """Raises INVALID_CONFIG, naming all that does not fit the cluster."""
    wrong = list(_differences(wanted, there))
    if wrong:
        raise _invalid(f"{file} does not fit the cluster: {'; '.join(wrong)}. Mend it, join again")


def _differences(wanted: Config, there: Config) -> Iterator[str]:
    for key in ("driver", "hosts", "session_timeout_s", "tls"):
        has, needs = getattr(there.state, key), getattr(wanted.state, key)
        if (sorted(has) if key == "hosts" else has) != (sorted(needs) if key == "hosts" else needs):
            yield f"state.{key} must be {_shown(needs)}, not {_shown(has)}"
    if bool(wanted.state.credentials_file) != bool(there.state.credentials_file):
        yield f"state.credentials_file must be {wanted.state.credentials_file!r}"
    for key in ("listen", "first_port"):
        has, needs = getattr(there.mesh, key), getattr(wanted.mesh, key)
        if has != needs:
            yield f"mesh.{key} must be {_shown(needs)}, not {_shown(has)}"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value) or "empty"


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def _pem(der: bytes) -> bytes:
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise _invalid(f"the token's certificate cannot be read: {error}") from error
    return certificate.public_bytes(serialization.Encoding.PEM)


def _invalid(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, message)
