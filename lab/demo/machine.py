"""The demo's PVC on this machine: its folders, its configuration, starting and ending it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pvc_client import Cluster
from pvc_client.errors import PvcError as ClientError

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "demo"
"""What may be kept from one demo to the next: built images and package archives."""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 40.0

CONFIG = """\
# The demo: everything below is its own, beside whatever else this machine runs.
[node]
name = "demo"
state_dir = "{state}"
run_dir = "{run}"

[cluster]
name = "demo"

[gateway]
grpc_listen = "127.0.0.1:7371"
rest_listen = "127.0.0.1:7370"

[network]
namespace = "pvc-demo"

[provisioner]
work_dir = "{images}"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the demo lives."""

    base: Path = Path("/var/lib/pvc-demo")
    run: Path = Path("/run/pvc-demo")

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.base / "pvc.toml"

    @property
    def log(self) -> Path:
        """What pvcd writes."""
        return self.base / "pvcd.log"

    @property
    def pid_file(self) -> Path:
        """The process that runs pvcd."""
        return self.run / "pvcd.pid"

    @property
    def address(self) -> str:
        """How root on this machine reaches it."""
        return f"unix:{self.run}/pvc.sock"

    @property
    def token_file(self) -> Path:
        """The first admin's token."""
        return self.base / "state" / "admin.token"

    def configure(self) -> None:
        """Writes its configuration."""
        self.base.mkdir(parents=True, exist_ok=True)
        # Passable for all: the network's servers run as users of their own.
        self.run.mkdir(parents=True, exist_ok=True, mode=0o755)
        CACHE.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(state=self.base / "state", run=self.run, images=CACHE / "images")
        self.config.write_text(text)

    def running(self) -> int:
        """The process id of its pvcd, 0 when it does not run."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if b"services.pvcd" in command and bytes(self.config) in command else 0

    def start(self) -> Cluster:
        """Starts pvcd if it does not run; a connection to it once it answers."""
        if not self.running():
            self._launch()
        cluster = Cluster(self.address)
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if cluster.status().leader and list(cluster.nodes.list()):
                    return cluster
            except ClientError:
                if not self.running():
                    raise SystemExit(f"pvcd ended while starting: see {self.log}") from None
            if time.monotonic() > end:
                raise SystemExit(f"pvcd does not answer after {START_TIMEOUT_S:.0f} s: {self.log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends pvcd; its VMs go on."""
        pid = self.running()
        if not pid:
            return
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_TIMEOUT_S
        while self.running():
            if time.monotonic() > end:
                raise SystemExit(f"pvcd (process {pid}) does not end; see {self.log}")
            time.sleep(0.1)

    def forget(self) -> None:
        """Removes what is left of its folders."""
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.rmtree(self.run, ignore_errors=True)

    def _launch(self) -> None:
        command = [sys.executable, "-m", "services.pvcd", "--config", str(self.config)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.pid_file.write_text(str(process.pid))
