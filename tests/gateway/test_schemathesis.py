"""The OpenAPI file against the real gateway and all services: what fits it and what does not is
answered as it says, never with a failure of ours, and nothing that is refused changes anything."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from pvc.core.v1 import options_pb2
from services.gateway.methods import METHODS
from services.gateway.rest import OPENAPI
from services.gateway.transcode import ROUTES, WHOLE, Route
from tests.contract.whole import Whole, running

EXAMPLES = 3
"""Of each kind, for each operation."""
DOCUMENT: dict[str, Any] = json.loads(OPENAPI.read_text())
CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (found.ok() for found in SCHEMA.get_all_operations())
}
LASTING = {"OperationService_WaitOperation"}
"""They may take as long as they are asked to."""
STREAMS = {"text/event-stream", "application/octet-stream", "application/x-ndjson"}
ANSWERED_ONCE = sorted(
    name
    for name, operation in OPERATIONS.items()
    if not STREAMS & set(operation.definition.raw.get("produces", ()))
    and not STREAMS & set(operation.definition.raw.get("consumes", ()))
    and name not in LASTING
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("storm")) as whole:
        yield whole


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("name", ANSWERED_ONCE)
@settings(
    max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], database=None,
    derandomize=True, suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_every_call_is_answered_as_the_contract_says(
    whole: Whole, name: str, mode: Any, data: st.DataObject
) -> None:
    case = data.draw(OPERATIONS[name].as_strategy(generation_mode=mode))
    headers = {"authorization": f"Bearer {whole.secrets['eve']}"}
    response = case.call(base_url=whole.rest_url, headers=headers, timeout=60)
    case.validate_response(response, checks=CHECKS)
    told = response.json()
    if response.status_code >= 400:
        reason = told["details"][0]["reason"]
        assert reason != "INTERNAL" and response.status_code != 500, told
        assert reason != "INVALID_FIELD" or told["message"], told
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if r.body and not r.method.client_streaming],
    ids=lambda r: r.template.text,
)
def test_a_field_that_is_unknown_is_named_and_nothing_is_done(whole: Whole, route: Route) -> None:
    path = re.sub(r"\{[^=}]+=([^}]+)\}", r"\1", route.template.text).replace("*", "x")
    before = whole.rows()
    connection = http.client.HTTPConnection("127.0.0.1", whole.doors.rest_port, timeout=60)
    headers = {"authorization": f"Bearer {whole.secrets['eve']}"}
    connection.request(route.verb, path, '{"unheard_of": 1}', headers)
    response = connection.getresponse()
    told = json.loads(response.read())
    connection.close()
    inside = "" if route.body == WHOLE else f"{route.body}."
    assert response.status == 400
    assert told["details"][1]["fieldViolations"][0]["field"] == f"{inside}unheard_of"
    assert whole.rows() == before


def test_the_file_is_as_the_specification_has_it() -> None:
    """By the specification's own schema, and what that cannot say: ids and parameters."""
    SCHEMA.validate()
    assert len(OPERATIONS) == sum(map(len, DOCUMENT["paths"].values())), "ids are no one's twice"
    for path, verbs in DOCUMENT["paths"].items():
        for operation in verbs.values():
            named = [(one["in"], one["name"]) for one in operation["parameters"]]
            assert len(named) == len(set(named)), operation["operationId"]
            in_path = {name for place, name in named if place == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path)), operation["operationId"]
            assert operation["summary"] and operation["x-pvc-role"]
    texts = json.dumps(DOCUMENT)
    for name in re.findall(r'"#/definitions/([^"]+)"', texts):
        assert name in DOCUMENT["definitions"]
    assert DOCUMENT["securityDefinitions"].keys() == {"bearer"} == DOCUMENT["security"][0].keys()


def test_the_file_says_all_that_the_contracts_say() -> None:
    """Roles, rules and values are those of the descriptors."""
    by_method = {name.rstrip("2").replace("_", "/"): o for name, o in OPERATIONS.items()}
    for method in METHODS.values():
        if not method.internal:
            said = by_method[method.short].definition.raw["x-pvc-role"]
            role = options_pb2.Role.Name(method.role).removeprefix("ROLE_").lower()
            assert method.by_secret or said == role
    for kind, schema in DOCUMENT["definitions"].items():
        for name, shown in schema.get("properties", {}).items():
            assert kind.startswith("google.") or (
                "." in kind and ("description" in shown or "$ref" in shown or "items" in shown)
            ), f"{kind}.{name} has no words"
    cpu = DOCUMENT["definitions"]["pvc.compute.v1.CpuSpec"]["properties"]["vcpus"]
    assert (cpu["maximum"], cpu["x-pvc-rules"]) == (512, "1 to 512")
