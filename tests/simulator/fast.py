"""Pure functions that a run calls thousands of times with the same arguments, remembered. Nothing
else of the real code is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from unittest import mock

from services.compute import hands, sight
from services.compute.drivers import domain_xml, observed

_read = lru_cache(maxsize=8192)(observed.parse_domain)
_built: dict[tuple[str, bytes, str], str] = {}


def _domain_xml(vm: Any, machine: Any) -> str:
    key = (vm.name, vm.spec.SerializeToString(deterministic=True), repr(machine))
    if key not in _built:
        _built[key] = domain_xml.domain_xml(vm, machine)
    return _built[key]


@contextmanager
def remembered() -> Iterator[None]:
    """For as long as a run takes."""
    if len(_built) > 20_000:
        _built.clear()
    with ExitStack() as patches:
        for module in (hands, sight):
            patches.enter_context(mock.patch.object(module, "domain_xml", _domain_xml))
        patches.enter_context(mock.patch.object(sight, "read", _read))
        patches.enter_context(mock.patch.object(sight, "parse_domain", _read))
        patches.enter_context(mock.patch.object(observed, "parse_domain", _read))
        yield
