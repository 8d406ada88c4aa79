"""What can go wrong, as a tree of classes: one for each Reason of the contract, under what a caller
can do about it.

`except NotFound` catches one case, `except Refused` all in which the state of things is in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import grpc
    from google.rpc import status_pb2

DETAILS = "grpc-status-details-bin"


class PvcError(Exception):
    """Whatever PVC refuses or fails to do.

    message: what, why, and what to do next. field: path of the request's field at fault, "" for
    none.
    metadata: further facts. operation: the operation that failed, "" when the request itself did.
    retry_after_s: when the cluster says that asking again may help; None where it says nothing.
    """

    reason: ClassVar[str] = ""
    """The name of the Reason, without its prefix."""

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        operation: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        self.operation = operation
        self.retry_after_s = retry_after_s


class InvalidRequest(PvcError):
    """The request is wrong in itself: change it."""


class InvalidField(InvalidRequest):
    """A field breaks a rule of the contract; `field` is its path."""

    reason = "INVALID_FIELD"


class InvalidQuery(InvalidRequest):
    """The filter, the order or the page token cannot be understood."""

    reason = "INVALID_QUERY"


class InvalidContent(InvalidRequest):
    """A text or image that was handed over is not what it should be."""

    reason = "INVALID_CONTENT"


class RequestIdReused(InvalidRequest):
    """The same request_id came with another request before."""

    reason = "REQUEST_ID_REUSED"


class ImmutableField(InvalidRequest):
    """The field can be given at creation only."""

    reason = "IMMUTABLE_FIELD"


class TooLarge(InvalidRequest):
    """A row, a transaction or a message is larger than the limit."""

    reason = "TOO_LARGE"


class NotFound(PvcError):
    """The resource does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(PvcError):
    """A resource of that name exists."""

    reason = "ALREADY_EXISTS"


class Refused(PvcError):
    """The state of things is in the way: change that first."""


class DanglingReference(Refused):
    """A field refers to a resource that does not exist."""

    reason = "DANGLING_REFERENCE"


class WrongState(Refused):
    """The resource is in a state in which this cannot be done."""

    reason = "WRONG_STATE"


class InUse(Refused):
    """Something else uses the resource."""

    reason = "IN_USE"


class NotSupported(Refused):
    """Not possible with this driver, machine or format."""

    reason = "NOT_SUPPORTED"


class GuestUnresponsive(Refused):
    """The guest has no agent, or its agent or kernel did not answer."""

    reason = "GUEST_UNRESPONSIVE"


class InvalidConfig(Refused):
    """A configuration file has a mistake."""

    reason = "INVALID_CONFIG"


class SchemaTooNew(Refused):
    """A newer version of PVC wrote what this one reads."""

    reason = "SCHEMA_TOO_NEW"


class Exhausted(PvcError):
    """Something has run out: make room."""


class NoNodeFits(Exhausted):
    """No node can take the VM; the message lists each with its reasons."""

    reason = "NO_NODE_FITS"


class OutOfSpace(Exhausted):
    """A pool or file system has not enough room."""

    reason = "OUT_OF_SPACE"


class Overtaken(PvcError):
    """Others were quicker, or it broke off: read again and try again."""


class EtagMismatch(Overtaken):
    """The resource changed since it was read."""

    reason = "ETAG_MISMATCH"


class Busy(Overtaken):
    """Another operation works on the resource."""

    reason = "BUSY"


class Interrupted(Overtaken):
    """The worker died in the middle; what it had done was undone or is said."""

    reason = "INTERRUPTED"


class Superseded(Overtaken):
    """A newer request made the operation pointless."""

    reason = "SUPERSEDED"


class NotLeader(Overtaken):
    """The writer is no longer the leader; nothing was written."""

    reason = "NOT_LEADER"


class Cancelled(PvcError):
    """Cancelled by request."""

    reason = "CANCELLED"


class Deadline(PvcError):
    """The time given for it passed."""

    reason = "DEADLINE"


class RevisionTooOld(PvcError):
    """The revision to resume a watch from is no longer kept: begin anew."""

    reason = "REVISION_TOO_OLD"


class Unavailable(PvcError):
    """Something does not answer just now: safe to try again."""


class StoreUnavailable(Unavailable):
    """The state store cannot be reached."""

    reason = "STORE_UNAVAILABLE"


class Unreachable(Unavailable):
    """The service, node or cluster cannot be reached."""

    reason = "UNREACHABLE"


class AuditFailed(Unavailable):
    """The gateway cannot write down who changes what, and lets no change in: nothing was done."""

    reason = "AUDIT_FAILED"


class RateLimited(PvcError):
    """This caller asks too often."""

    reason = "RATE_LIMITED"


class AccessRefused(PvcError):
    """The caller may not."""


class Unauthenticated(AccessRefused):
    """No or no valid credentials."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(AccessRefused):
    """The caller's role does not allow it."""

    reason = "PERMISSION_DENIED"


class Failed(PvcError):
    """It was tried and went wrong."""


class HypervisorFailed(Failed):
    """The hypervisor refused or failed."""

    reason = "HYPERVISOR_FAILED"


class StorageFailed(Failed):
    """The storage refused or failed."""

    reason = "STORAGE_FAILED"


class NetworkFailed(Failed):
    """A network component refused or failed."""

    reason = "NETWORK_FAILED"


class BuildFailed(Failed):
    """Building an image or a VM failed; the operation's log tells where."""

    reason = "BUILD_FAILED"


class VmCrashed(Failed):
    """The VM's emulator ended without being asked to."""

    reason = "VM_CRASHED"


class MigrationFailed(Failed):
    """The VM could not be moved while it runs; it goes on where it was."""

    reason = "MIGRATION_FAILED"


class PowerFailed(Unavailable):
    """The controller of a node's power refused or did not answer."""

    reason = "POWER_FAILED"


class Internal(Failed):
    """A mistake in PVC itself."""

    reason = "INTERNAL"


def _leaves(base: type[PvcError]) -> Iterator[type[PvcError]]:
    for kind in base.__subclasses__():
        if kind.reason:
            yield kind
        yield from _leaves(kind)


BY_REASON: Mapping[str, type[PvcError]] = {kind.reason: kind for kind in _leaves(PvcError)}
"""Name of the Reason without its prefix → class."""

_BY_CODE: Mapping[int, type[PvcError]] = {
    1: Cancelled,
    3: InvalidField,
    4: Deadline,
    5: NotFound,
    7: PermissionDenied,
    8: TooLarge,
    12: NotSupported,
    14: Unreachable,
    16: Unauthenticated,
}
"""For errors that did not come from PVC itself (grpc's own, a proxy's): status code → class."""


def from_status(status: status_pb2.Status, operation: str = "") -> PvcError:
    """The error that a Status stands for."""
    from google.rpc import error_details_pb2

    kind, field, retry_after_s = _BY_CODE.get(status.code, Internal), "", None
    metadata: dict[str, str] = {}
    facts, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(facts) and facts.reason in BY_REASON:
            kind, metadata = BY_REASON[facts.reason], dict(facts.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return kind(
        status.message,
        field=field,
        metadata=metadata,
        operation=operation,
        retry_after_s=retry_after_s,
    )


def from_rpc(error: Any, address: str = "") -> PvcError:
    """The error that a failed grpc call stands for; grpc's own ones are told with the address."""
    from google.protobuf.message import DecodeError
    from google.rpc import status_pb2

    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code: grpc.StatusCode = error.code()
    words = error.details() or code.name
    if code.name == "UNAVAILABLE" and address:
        words = _unanswered(address, words)
    elif code.name == "DEADLINE_EXCEEDED" and address:
        words = f"{address} gave no answer in the time that the call was given"
    return from_status(status_pb2.Status(code=code.value[0], message=words))


_TLS_TROUBLE = {
    "certificate has expired": "shows a certificate that has expired: have it renewed there",
    "CERTIFICATE_VERIFY_FAILED": "shows a certificate that no CA signed that is trusted here: give "
    "the cluster's own (--ca FILE or PVC_CA; ca= in programs)",
    "Hostname Verification Check failed": "shows a certificate that was made for other addresses: "
    "call it by one that the certificate names",
    "WRONG_VERSION_NUMBER": "does not speak TLS: is that its port for gRPC?",
}
"""What grpc's words have in them → what is the matter, in ours."""


def _unanswered(address: str, words: str) -> str:
    """Why a call did not get through to an address."""
    for sign, trouble in _TLS_TROUBLE.items():
        if sign in words:
            return f"{address} {trouble}"
    return f"{address} does not answer: {words.rpartition(': ')[2].rstrip(']')}"


def mention(stop: BaseException, words: str) -> None:
    """Says what goes on after somebody was stopped in the middle: in the exception and to the log
    of the program, if it keeps one."""
    import logging

    log = logging.getLogger("pvc_client")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    stop.add_note(words)
    log.warning("%s", words)
