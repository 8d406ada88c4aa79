"""A virtual machine under plain QEMU, for tests of disks and seeds without PVC around them."""

import json
import os
import selectors
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.ports import free_port


@dataclass(slots=True)
class Machine:
    """Runs on a throw-away copy of its disk (`-snapshot`); always ended by `with`.

    Serial console: `wait_for`, `type_line`. QMP: `qmp`. Guest agent: `agent`. The guest's port 80
    is `http_port` on the loopback address.
    """

    folder: Path
    disk: Path
    seed: Path | None = None
    memory_mib: int = 128
    cpus: int = 1
    disk_bus: str = "virtio-blk"
    console: str = ""
    http_port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _began: float = 0.0

    def __enter__(self) -> Self:
        self.http_port = free_port()
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            self._arguments(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._running
        process.kill()
        process.wait()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _arguments(self) -> list[str]:
        image_format = "qcow2" if self.disk.suffix == ".qcow2" else "raw"
        devices = {"virtio-blk": "virtio-blk-pci", "virtio-scsi": "scsi-hd"}
        seed = [] if self.seed is None else [
            "-drive", f"file={self.seed},format=raw,if=none,id=seed,readonly=on,media=cdrom",
            "-device", "scsi-cd,drive=seed",
        ]  # fmt: skip
        return [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-nodefaults",
            "-no-user-config", "-display", "none", "-serial", "stdio", "-snapshot",
            "-m", str(self.memory_mib), "-smp", str(self.cpus),
            "-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off",
            "-device", "virtio-scsi-pci",
            "-drive", f"file={self.disk},format={image_format},if=none,id=disk,cache=unsafe",
            "-device", f"{devices[self.disk_bus]},drive=disk",
            "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.http_port}-:80",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,path={self.folder / 'agent'},server=on,wait=off,id=agent",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-device", "virtio-rng-pci",
            *seed,
        ]  # fmt: skip

    def wait_for(self, text: str, timeout_s: float) -> float:
        """Reads the console until the text is on it; returns the seconds since the start."""
        output = self._running.stdout
        assert output is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while text not in self.console:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise AssertionError(f"no {text!r} in {timeout_s} s: {self.console[-3000:]}")
                chunk = os.read(output.fileno(), 65536)
                assert chunk, f"QEMU ended: {self.console[-3000:]}"
                self.console += chunk.decode("utf-8", "replace")
        return time.monotonic() - self._began

    def type_line(self, line: str) -> None:
        """Types a line on the serial console."""
        assert self._running.stdin is not None
        self._running.stdin.write(line.encode() + b"\n")
        self._running.stdin.flush()

    def qmp(self, command: str) -> Any:
        """One QMP command's answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.folder / "qmp"))
            lines = connection.makefile("rw")
            assert "QMP" in json.loads(lines.readline())
            _ask(lines, "qmp_capabilities")
            return _ask(lines, command)

    def agent(self, command: str, timeout_s: float) -> Any:
        """One guest agent command's answer, as soon as there is an agent."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self.folder / "agent"))
            return _ask(connection.makefile("rw"), command)

    def wait_off(self, timeout_s: float) -> int:
        """Waits until the machine has switched itself off; returns QEMU's exit status."""
        return self._running.wait(timeout_s)


def _ask(lines: Any, command: str) -> Any:
    lines.write(json.dumps({"execute": command}) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "event" not in answer:
            return answer["return"]
