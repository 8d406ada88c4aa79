"""Every Reason of the contract is come by through the client: as the class of its name, with the
field at fault, in words that say how to go on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.core.v1 import reason_pb2
from pvc_client import Cluster, transport
from pvc_client.errors import BY_REASON
from tests.contract.reasons import ELSEWHERE, PROVOKED
from tests.contract.stage import Stage
from tests.contract.whole import Whole

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def calm_stage(whole: Whole, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage whose fakes behave again afterwards. The client tries again without waiting."""
    monkeypatch.setattr(transport, "RETRY_FIRST_S", 0.001)
    shutil.rmtree(whole.folder / "state" / "images" / "cache", ignore_errors=True)
    yield Stage(whole, cluster)
    whole.builder.fault = lambda task: None
    whole.disks.faults.clear()
    whole.disks.before_call = lambda verb: None
    whole.fabric.script.fails.clear()
    whole.hypervisor._inner._scripts.clear()


@pytest.mark.parametrize("reason", PROVOKED)
def test_the_client_hears_why(reason: str, calm_stage: Stage) -> None:
    provoked = PROVOKED[reason]
    with pytest.raises(BY_REASON[reason]) as caught:
        provoked.by(calm_stage)
    error = caught.value
    assert type(error) is BY_REASON[reason]
    assert error.field == provoked.field
    assert re.search(provoked.next, error.message), error.message
    assert "Traceback" not in error.message and "0x" not in error.message


def test_every_reason_is_provoked_here_or_elsewhere() -> None:
    values = reason_pb2.Reason.DESCRIPTOR.values
    reasons = {value.name.removeprefix("REASON_") for value in values}
    assert set(PROVOKED) | set(ELSEWHERE) == reasons - {"UNSPECIFIED"}
    for reason, file in ELSEWHERE.items():
        assert reason in (ROOT / file).read_text(), f"{reason} is not in {file}"


def test_it_works_after_all_that(whole: Whole, cluster: Cluster) -> None:
    stage = Stage(whole, cluster)
    stage.image()
    stage.network()
    assert cluster.vms.get(stage.vm_with_disk(on=True)).status.state == 3
    assert cluster.status().nodes["ONLINE"] > 0
