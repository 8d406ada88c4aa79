"""One PVC for all contract tests of a file, and what it takes to ask it for something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pvc_client import Cluster
from tests.contract.stage import Stage
from tests.contract.ways import Grpc, Rest
from tests.contract.whole import Whole, running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("pvc")) as whole:
        yield whole


@pytest.fixture(scope="module")
def cluster(whole: Whole) -> Iterator[Cluster]:
    with whole.client() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stage(whole: Whole, cluster: Cluster) -> Stage:
    return Stage(whole, cluster)


@pytest.fixture(scope="module")
def grpc_way(whole: Whole) -> Iterator[Grpc]:
    with Grpc(whole) as way:
        yield way


@pytest.fixture(scope="module")
def rest_way(whole: Whole) -> Iterator[Rest]:
    with Rest(whole) as way:
        yield way
