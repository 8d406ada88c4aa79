"""Fixtures: a real ZooKeeper server, as the tests of the state have it."""

from __future__ import annotations

from tests.state.conftest import zookeeper

__all__ = ["zookeeper"]
