"""PVC's systemd units, read as the lab's own supervisor needs them: it runs what a real node
runs, as a real node runs it."""

from __future__ import annotations

from pathlib import Path

from lab.cluster.site import ROOT, LabError
from lab.node.plan import Program

FOLDER = ROOT / "packaging" / "systemd"
TARGET = "pvc.target"
LOGS = "/var/log/pvc"


def programs(folder: Path = FOLDER) -> tuple[Program, ...]:
    """The services that pvc.target wants."""
    wants = _values(folder / TARGET, "Unit", "Wants")
    return tuple(program(unit, folder) for line in wants for unit in line.split())


def program(unit: str, folder: Path = FOLDER) -> Program:
    """pvc@compute.service → how it is run. Raises LabError."""
    name, _, rest = unit.partition("@")
    instance = rest.removesuffix(".service")
    path = folder / f"{name}@.service"

    def one(section: str, key: str, default: str = "") -> str:
        found = _values(path, section, key)
        return found[-1].replace("%i", instance) if found else default

    if not instance or not one("Service", "ExecStart"):
        raise LabError(f"{path} does not say how {unit} is started")
    if one("Service", "Restart") != "always":
        raise LabError(f"{path}: the lab knows only Restart=always")
    return Program(
        name=instance,
        command=tuple(one("Service", "ExecStart").split()),
        directory=one("Service", "WorkingDirectory", "/"),
        log=f"{LOGS}/{instance}.log",
        restart_s=_seconds(one("Service", "RestartSec", "100ms")),
        stop_s=_seconds(one("Service", "TimeoutStopSec", "90s")),
        condition=one("Unit", "ConditionPathExists"),
    )


def _values(path: Path, section: str, key: str) -> list[str]:
    """All values of a key that may be given several times."""
    found, here = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif here == section and line.startswith(f"{key}="):
            found.append(line.partition("=")[2].strip())
    return found


def _seconds(text: str) -> float:
    if text.endswith("ms"):
        return float(text.removesuffix("ms")) / 1000
    return float(text.removesuffix("s"))
