"""What libvirt hands on from others is read with care."""

from __future__ import annotations

from typing import Any

import libvirt

from services.compute.drivers.libvirt import _guest, _resume, _trouble


def test_addresses_that_are_none_are_left_out() -> None:
    """They come from the guest's own agent."""
    told: dict[str, Any] = {
        "eth0": {
            "addrs": [
                {"addr": "10.64.0.10", "prefix": 24},
                {"addr": "no address\n", "prefix": 24},
                {"addr": "10.64.0.11", "prefix": 2**31},
                {"addr": "fe80::1%eth0", "prefix": 64},
            ]
        },
        "eth1": {"addrs": None},
    }
    assert _guest({"hostname": "web"}, told).addresses == ("10.64.0.10/24",)


def test_a_domain_that_cannot_be_asked_about_its_disks_hides_no_other() -> None:
    class Deaf:
        def name(self) -> str:
            return "web"

        def diskErrors(self, flags: int) -> dict[str, int]:
            raise libvirt.libvirtError("cannot acquire state change lock")

    paused = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
    assert _trouble(Deaf(), *paused) == "its storage failed"  # type: ignore[arg-type]


def test_a_guest_that_sleeps_is_woken() -> None:
    """libvirt refuses to resume what was not paused."""
    done: list[str] = []

    class Asleep:
        def state(self) -> tuple[int, int]:
            return libvirt.VIR_DOMAIN_PMSUSPENDED, 0

        def pMWakeup(self, flags: int) -> None:
            done.append("woken")

    _resume(Asleep())  # type: ignore[arg-type]
    assert done == ["woken"]
    asleep = (libvirt.VIR_DOMAIN_PMSUSPENDED, 0)
    assert "sleep" in _trouble(Asleep(), *asleep)  # type: ignore[arg-type]
