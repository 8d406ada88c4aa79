"""The tiny guest and the Debian image under plain QEMU: they boot, answer and power off."""

import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from services.provisioner.build import BuildSettings, build_image, builtin_recipes
from services.provisioner.core.recipe import content_hash, parse_recipe
from services.provisioner.drivers.work_folder import MARKER, mounts_below
from services.provisioner.seeds import SeedTexts, make_seed
from tests.guests.machine import Machine
from tests.guests.tiny import CACHE, READY, tiny_disk

pytestmark = pytest.mark.real


def fetch(machine: Machine, path: str, timeout_s: float = 60.0) -> str:
    """The guest's HTTP answer, as soon as there is one."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            url = f"http://127.0.0.1:{machine.http_port}{path}"
            with urllib.request.urlopen(url, timeout=20) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize("bus", ["virtio-blk", "virtio-scsi"])
def test_tiny_guest_boots_answers_and_powers_off(tmp_path: Path, bus: str) -> None:
    seed = tmp_path / "seed.iso"
    seed.write_bytes(make_seed(SeedTexts(), "i-42", "small"))
    with Machine(tmp_path, tiny_disk(), seed, disk_bus=bus) as machine:
        machine.wait_for(f"{READY} host=small ", 120)
        assert "SEED instance-id=i-42" in machine.console
        machine.wait_for("PVC-TINY DHCP eth0 10.0.2.15", 60)
        assert fetch(machine, "/") == "pvc-tiny small\n"
        assert "online=0 present=0" in fetch(machine, "/cgi-bin/state")
        machine.type_line("echo $((6 * 7)) typed")
        machine.wait_for("42 typed", 60)
        machine.qmp("system_powerdown")
        assert machine.wait_off(60) == 0


def debian_image() -> Path:
    """The built-in recipe's image, from the cache if it holds the one of this hash."""
    if missing := [p for p in ("mmdebstrap", "grub-mkimage", "sfdisk") if not shutil.which(p)]:
        pytest.skip(f"missing: {missing}")
    recipe = parse_recipe(builtin_recipes()["debian-12"])
    folder = CACHE / "images"
    image = folder / f"{recipe.name}-{content_hash(recipe)[:16]}.qcow2"
    if not image.exists():
        for old in folder.glob(f"{recipe.name}-*.qcow2"):
            old.unlink()
        build_image(recipe, image, BuildSettings(folder, CACHE / "apt"))
        assert [path for path in folder.glob(f"{MARKER}*") if path.is_dir()] == []
        assert not mounts_below(folder)
    return image


USER_DATA = """\
#cloud-config
write_files:
  - path: /srv/www/index.html
    content: "marker-4711\\n"
runcmd:
  - [systemd-run, busybox, httpd, -f, -p, "80", -h, /srv/www]
  - [sh, -c, "echo USER-DATA-RAN as $(hostname) > /dev/ttyS0"]
"""


@pytest.mark.timeout(1800)
def test_debian_image_builds_and_runs_its_user_data(tmp_path: Path) -> None:
    image = debian_image()
    check = subprocess.run(["qemu-img", "check", str(image)], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
    seed = tmp_path / "seed.iso"
    seed.write_bytes(make_seed(SeedTexts(user_data=USER_DATA), "i-1", "web-1"))
    with Machine(tmp_path, image, seed, memory_mib=512, cpus=2) as machine:
        machine.wait_for("USER-DATA-RAN as web-1", 600)
        machine.wait_for("Datasource DataSourceNoCloud", 60)
        assert "WARNING" not in machine.console
        assert machine.agent("guest-get-host-name", 120)["host-name"] == "web-1"
        assert fetch(machine, "/") == "marker-4711\n"
        machine.wait_for("web-1 login:", 120)
        machine.qmp("system_powerdown")
        assert machine.wait_off(120) == 0
