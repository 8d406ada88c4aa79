"""How all tests run: generated examples are the same every time, and none fails by the clock."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

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
