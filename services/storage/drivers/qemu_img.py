"""The words that qemu-img is given, and the meaning of what it answers. Pure: it runs nothing.

Every path is absolute, so that none is taken for a protocol ("nbd:…"), and every format is said, so
that none is guessed from what a guest wrote into its disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.storage.drivers.driver import DiskFacts, Format, ImageFacts

PROGRAM = "qemu-img"

_PERCENT = re.compile(rb"\((\d{1,3}(?:\.\d+)?)/100%\)")


def create(path: str, format: Format, size_bytes: int) -> list[str]:
    """An empty image."""
    return [PROGRAM, "create", "-q", "-f", format, path, str(size_bytes)]


def clone(path: str, base: str, base_format: Format, size_bytes: int) -> list[str]:
    """A qcow2 image on top of a base, named relative to the image.

    The base is not opened (-u): it need not be reachable from where the image is made.
    """
    backing = ["-b", base, "-F", base_format, "-u"]
    return [PROGRAM, "create", "-q", "-f", "qcow2", *backing, path, str(size_bytes)]


def resize(path: str, format: Format, size_bytes: int) -> list[str]:
    """A larger image."""
    return [PROGRAM, "resize", "-q", "-f", format, path, str(size_bytes)]


def snapshot(path: str, verb: str, name: str) -> list[str]:
    """verb: -c takes, -d removes, -a goes back to the snapshot inside the image."""
    assert verb in ("-c", "-d", "-a")
    image = f"driver=qcow2,file.driver=file,file.filename={path.replace(',', ',,')}"
    return [PROGRAM, "snapshot", "-q", verb, name, "--image-opts", image]


def mend(path: str) -> list[str]:
    """Gives clusters back that an interrupted change left without an owner."""
    return [PROGRAM, "check", "-q", "-r", "leaks", "-f", "qcow2", path]


def describe(path: str, format: Format) -> list[str]:
    """What one of our images is. -U: also while a VM has it open."""
    return [PROGRAM, "info", "--output=json", "-U", "-f", format, path]


def copy(
    source: str, source_format: Format, to: str, format: Format, cache: Sequence[str],
    snapshot: str = "",
) -> list[str]:  # fmt: skip
    """A full copy of one of our images, whatever bases it has, or of a snapshot inside it.

    A snapshot may be read while a VM writes the image (-U): its blocks are never written again.
    """
    which = ["-U", "-l", f"snapshot.name={snapshot}"] if snapshot else []
    return [PROGRAM, "convert", "-p", *cache, *which, "-f", source_format, "-O", format, source, to]


def export(
    source: str, source_format: Format, to: str, format: Format, compress: bool,
    cache: Sequence[str], snapshot: str = "",
) -> list[str]:  # fmt: skip
    """As `copy`, in a form to take away."""
    words = copy(source, source_format, to, format, cache, snapshot)
    options = ["-o", "subformat=streamOptimized"] if format == "vmdk" else []
    if compress and format == "qcow2":
        options.append("-c")
    return [*words[:3], *options, *words[3:]]


def foreign(path: str, format: Format) -> str:
    """Names an image from outside in such a way that only this one file is opened, whatever it
    refers to.
    """
    blocks: dict[str, Any] = {"driver": "file", "filename": path}
    image: dict[str, Any] = {"driver": format, "file": blocks}
    if format != "raw":
        image["backing"] = None
    return "json:" + json.dumps(image, separators=(",", ":"))


def describe_foreign(path: str, format: Format) -> list[str]:
    """What an image from outside is."""
    return [PROGRAM, "info", "--output=json", foreign(path, format)]


def check_foreign(path: str, format: Format) -> list[str]:
    """Whether its tables point at what is there."""
    return [PROGRAM, "check", "--output=json", foreign(path, format)]


def measure_foreign(path: str, format: Format) -> list[str]:
    """How much room its contents take in a qcow2 image."""
    return [PROGRAM, "measure", "--output=json", "-O", "qcow2", foreign(path, format)]


def copy_foreign(
    source: str, source_format: Format, to: str, format: Format, cache: Sequence[str]
) -> list[str]:
    """A full copy of an image from outside."""
    return [PROGRAM, "convert", "-p", *cache, "-O", format, foreign(source, source_format), to]


def confined(words: Sequence[str], limits: Mapping[str, int]) -> list[str]:
    """The command, bound to die with the thread that runs it and within limits ("as", "cpu",
    "fsize").
    """
    bounds = [f"--{name}={value}" for name, value in sorted(limits.items())]
    guarded = ["prlimit", *bounds] if bounds else []
    return ["setpriv", "--pdeathsig", "KILL", *guarded, *words]


def percent_of(output: bytes) -> float | None:
    """The newest progress in what `-p` printed; None if there is none."""
    found = _PERCENT.findall(output)
    return min(float(found[-1]), 100.0) if found else None


def disk_facts(answer: str) -> DiskFacts:
    """What `describe` answered."""
    image = _object(answer)
    names = tuple(str(entry.get("name", "")) for entry in image.get("snapshots", []))
    return DiskFacts(int(image["virtual-size"]), int(image.get("actual-size", 0)), names)


def snapshot_ids(answer: str) -> dict[str, str]:
    """Name → number of the snapshots in what `describe` answered."""
    return {entry["name"]: str(entry["id"]) for entry in _object(answer).get("snapshots", [])}


def image_facts(answer: str, checked: str, measured: str) -> ImageFacts:
    """What `describe_foreign`, `check_foreign` ("" if not asked) and `measure_foreign` answered."""
    image = _object(answer)
    check = _object(checked) if checked else {}
    details = image.get("format-specific", {}).get("data", {})
    own = image.get("filename", "")
    others = [str(e.get("filename", "")) for e in details.get("extents", [])]
    files = [name for name in (details.get("data-file", ""), *others) if name and name != own]
    return ImageFacts(
        format=str(image.get("format", "")),
        size_bytes=int(image["virtual-size"]),
        needs_bytes=int(_object(measured)["required"]),
        backing=str(image.get("full-backing-filename") or image.get("backing-filename") or ""),
        references=tuple(files),
        encrypted=bool(image.get("encrypted")) or "encrypt" in details,
        corrupt=bool(
            details.get("corrupt") or check.get("corruptions") or check.get("check-errors")
        ),
    )


def _object(answer: str) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PvcError(
            reason_pb2.REASON_STORAGE_FAILED, f"qemu-img answered no JSON: {answer[:200]!r}"
        )
    return found


def failure(words: Sequence[str], status: int, stderr: str) -> PvcError:
    """The error that a failed call means."""
    verb = next((w for w, p in zip(words[1:], words, strict=False) if p == PROGRAM), "")
    text = " ".join(stderr.split())[:600] or f"ended with status {status}"
    reason = reason_pb2.REASON_STORAGE_FAILED
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        reason = reason_pb2.REASON_OUT_OF_SPACE
    elif "Is another process using the image" in stderr:
        reason = reason_pb2.REASON_IN_USE
        text = f"another process has the image open ({text})"
    return PvcError(reason, f"qemu-img {verb}: {text}")
