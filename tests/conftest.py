"""How all tests run: generated examples are the same every time, none fails by the clock, and one
that fails shows the logs of what it started."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import logs

# PVC_EXAMPLES=random looks for new ones.
RANDOM = os.environ.get("PVC_EXAMPLES") == "random"
settings.register_profile(
    "pvc",
    deadline=None,
    derandomize=not RANDOM,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("pvc")

# Whoever runs the tests in the background may have told them to ignore Ctrl-C; the programs that
# they start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What failed, with the ends of the logs that are followed."""
    report = yield
    if report.failed:
        report.sections += logs.ends()
    return report
