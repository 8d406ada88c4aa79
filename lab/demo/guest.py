"""The demo's guest: what cloud-init makes of it, and how it is asked over its network."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass

from services.network.drivers.namespace import within

PORT = 80
MARKER = "pvc-demo-7f3a"
ANSWER_TIMEOUT_S = 3.0

USER_DATA = f"""\
#cloud-config
write_files:
  - path: /srv/demo/cgi-bin/state
    permissions: "0755"
    content: |
      #!/bin/sh
      printf 'Content-Type: text/plain\\r\\n\\r\\n'
      echo "marker {MARKER}"
      echo "host $(hostname)"
      echo "boot $(cat /proc/sys/kernel/random/boot_id)"
      echo "disks $(cd /sys/block && echo sd* vd* | sed 's/ [sv]d[*]//g')"
  - path: /etc/systemd/system/demo.service
    content: |
      [Unit]
      Description=Answers the demo
      [Service]
      ExecStart=/bin/busybox httpd -f -p {PORT} -h /srv/demo
      Restart=always
      [Install]
      WantedBy=multi-user.target
runcmd:
  - [systemctl, enable, --now, demo.service]
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the guest said of itself."""

    marker: str
    host: str
    boot: str
    disks: tuple[str, ...]
    lines: tuple[str, ...]


def ask(namespace: str, address: str) -> Answer:
    """The guest's answer over its network. Raises OSError or HTTPException while there is none."""
    text = within(namespace, lambda: _fetch(address))
    facts = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    disks = tuple(facts.get("disks", "").split())
    return Answer(facts["marker"], facts["host"], facts["boot"], disks, tuple(text.splitlines()))


def wait_for(namespace: str, address: str, timeout_s: float, not_boot: str = "") -> Answer:
    """The first answer, of another start than `not_boot`. Raises TimeoutError."""
    end, last = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < end:
        try:
            answer = ask(namespace, address)
            if answer.boot != not_boot:
                return answer
            last = "still the old start"
        except (OSError, http.client.HTTPException, KeyError) as error:
            last = str(error) or type(error).__name__
        time.sleep(0.3)
    raise TimeoutError(f"the guest at {address} did not answer in {timeout_s:.0f} s: {last}")


def _fetch(address: str) -> str:
    connection = http.client.HTTPConnection(address, PORT, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/cgi-bin/state")
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"status {response.status}")
        return body
    finally:
        connection.close()
