"""How all tests run: generated examples are the same every time, and none fails by the clock."""

from __future__ import annotations

import os

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
