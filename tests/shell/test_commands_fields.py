"""Every field that a user may set can be set from the command line: by an option, or by a file that
`apply` takes. Read off the contracts, and seen in the requests that the commands send."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pvc.core.v1 import options_pb2
from shell.commands.fields import FieldArgument, FieldOption, fields_of
from shell.contract.fields import enum_words, is_map, leaves
from shell.contract.kinds import Kind, kinds
from shell.contract.manifest import is_for_files
from shell.contract.methods import methods
from tests.contract.stage import Stage
from tests.contract.whole import Whole
from tests.provisioner.worlds import qcow2
from tests.shell.test_commands import every_command

THE_CLIENTS = {"etag", "request_id", "validate_only", "update_mask", "name", "parent"}
"""Fields of requests that the client fills in, that --dry-run is, or that every command names."""
ELSEWHERE = {"JoinNode", "BalanceCluster"}
"""Methods that a machine asks, or whose fields the test of balancing looks at."""
VM_OPTIONS = (
    "--vcpus 4 --max-vcpus 8 --sockets 2 --cores 2 --threads 2 --cpu-model host --memory 2G"
    " --max-memory 4G --no-serial-console --vnc --guest-agent --rng --machine q35 --firmware uefi"
    " --description text --autostart never --shutdown-timeout 60 --on-crash leave --max-restarts 2"
    " --restart-delay 3 --ha-policy stop --ha-priority 900 --start-after vm-x"
    " --start-after-timeout 30 --ha-max-tries 2 --selector load --limit-nodes n1"
    " --node-rule avoid:ssd:required --vm-rule apart:db:required --no-balance"
    " --migration-method shutdown --allow-post-copy --max-downtime 100 --tag red"
)
WAYS: Sequence[str] = (
    "vm create {new} --disk local/x --network default --label a=b --start "
    "--uuid 12345678-1234-1234-1234-123456789abc",
    "vm create {new} --image debian-12 --pool local --root-size 8G --network default "
    "--user-data {file} --meta-data {file} --network-data {file} --start",
    "vm create {new} --image debian-12 --spec {vm_file}",
    "vm modify {vm} --label a=b --add-tag blue",
    "vm delete {vm} --volumes --force --yes --dry-run",
    "vm clone {vm} {new} --start --dry-run",
    "vm attach-disk {vm} local/x --id d --bus sata --cache none --discard --boot-order 2 "
    "--read-only --cdrom",
    "vm attach-nic {vm} default --id n --mac 52:54:00:00:00:01 --model e1000e --boot-order 2 "
    "--link-down",
    "vm define {file} --name {new} --volume vda=local/x --network br0=default",
    "vm rename {vm} {new} --dry-run",
    "vm detach-disk {vm} none --dry-run",
    "vm detach-nic {vm} none --dry-run",
    "volume resize local/x 5G --dry-run",
    "volume rename local/x {new} --dry-run",
    "vm snapshot create {vm} {new} --description text",
    "vm migrate {vm} --node n1 --method live --copy-volumes",
    "vm move {vm} --node n1 --method live --copy-volumes",
    "vm unmigrate {vm} --method live --copy-volumes",
    "node add {new} 10.0.0.9 --coordinator --expires 2h --dry-run",
    "node update {node} --description text --tag red --max-vms 3 --address 10.1.1.1 --label a=b",
    "node bmc set {node} --protocol redfish --address http://x --user root --password-file - "
    "--system 1 --certificate {file} --no-check",
    "node drain {node} --shutdown --copy-volumes --dry-run",
    "node ready {node} --leave-vms --copy-volumes --dry-run",
    "node secondary {node} --dry-run",
    "node confirm-dead {node} --why unplugged --yes",
    "cluster set --reserve-nodes 1 --fence-max-percent 30 --fence-delay 1s --restart-grace 30s "
    "--migrations-per-node 3 --migrations-per-cluster 9 --auto-balance --balance-threshold 30 "
    "--audit-days 30 --audit-entries 1000 --no-power-on-after-fence --dry-run",
    "cluster maintenance on --dry-run",
    "cluster ha disarm --dry-run",
    "network create {new} --ipnet 10.9.0.0/24 --gateway 10.9.0.1 --dhcp-start 10.9.0.10 "
    "--dhcp-end 10.9.0.20 --nat --domain x.org --mtu 1400 --vni 77 --description t --label a=b "
    "--dry-run",
    "network modify default --description changed --nat --label a=b --dry-run",
    "pool create {new} --path /x --node n1 --reserve 1G --description t --label a=b --dry-run",
    "pool create {new} --path /x --shared --dry-run",
    "pool modify local --description t --reserve 2G --label a=b --dry-run",
    "pool delete local --force --yes --dry-run",
    "volume create local/{new} 1G --image-format raw --description t --sealed --label a=b "
    "--dry-run",
    "volume create local/{new} --from local/x --dry-run",
    "volume create local/{new} --from local/x/y --dry-run",
    "volume delete local/x --force --yes --dry-run",
    "volume import {disk} local/{new} --source-format qcow2 --image-format raw --size 1G "
    "--description t --sealed",
    "volume export local/x {out} --image-format raw --compress --snapshot y",
    "snapshot create local/x y --description t --quiesce --dry-run",
    "image build {new} --recipe debian-12 --pool local --dry-run",
    "image build {new} --recipe-file {file} --dry-run",
    "image import {disk} {new} --description t --pool local",
    "token create {new} --role viewer --ttl 1h --description t",
    "token create {new} --role viewer --dry-run",
)


def set_paths(message: Any, inside: str = "") -> Iterator[str]:
    """The paths at which a message says something."""
    for field, value in message.ListFields():
        path = f"{inside}{field.name}"
        inner = field.message_type
        if inner is None or is_map(field) or inner.full_name.startswith("google."):
            yield path
        elif field.is_repeated:
            for item in value:
                yield from set_paths(item, f"{path}.")
        else:
            yield from set_paths(value, f"{path}.")


def sample(field: Any, turn: int) -> Any:
    """A value that a field can have."""
    if is_map(field):
        return {"k": "v"}
    one: Any = 7
    if field.enum_type is not None:
        one = next(iter(enum_words(field.enum_type)))
    elif field.message_type is not None:
        name = field.message_type.full_name
        times = {"google.protobuf.Timestamp": "2027-01-01T00:00:00Z"}
        one = (
            times.get(name, "3s")
            if name.startswith("google.")
            else filled(field.message_type, turn)
        )
    elif field.cpp_type == field.CPPTYPE_BOOL:
        one = True
    elif field.cpp_type == field.CPPTYPE_STRING:
        one = "eA==" if field.type == field.TYPE_BYTES else "x"
    return [one] if field.is_repeated else one


def filled(message: Any, turn: int) -> dict[str, Any]:
    """A thing in which everything is set that a file may set. turn: which part of a oneof."""
    found = {}
    for field in message.fields:
        oneof = field.containing_oneof
        chosen = (
            oneof is None
            or len(oneof.fields) == 1
            or (oneof.fields[turn % len(oneof.fields)] is field)
        )
        if chosen and is_for_files(field) and field.name != "name":
            found[field.name] = sample(field, turn)
    return found


def by_files(pvc: Any, stage: Stage, folder: Path) -> None:
    """Everything of every kind that a file can say, made and changed."""
    for turn in range(3):
        for kind in kinds().values():
            for name in names_of(stage, kind):
                path = folder / "all.yaml"
                path.write_text(yaml.safe_dump({"name": name} | filled(kind.message, turn)))
                any_code(pvc, "apply", "-f", str(path), "--dry-run")


def names_of(stage: Stage, kind: Kind) -> list[str]:
    """A name that nothing has, and of one that is there."""
    fresh = "/".join(f"{one}/{stage.fresh('f')}" for one in kind.path.split("/"))
    there = {"vms": lambda: f"vms/{stage.vm()}", "networks": stage.network, "pools": stage.pool,
             "nodes": stage.node, "tokens": stage.token}  # fmt: skip
    return [*([fresh] if kind.create else []), *([there[kind.path]()] if kind.update else [])]


def any_code(pvc: Any, *words: str) -> None:
    """Runs a command; whether it is done or refused does not matter."""
    from shell import main

    main.run(words)


def by_options(pvc: Any, stage: Stage, folder: Path, seen: Any) -> None:
    """Every option of every command."""
    node = stage.node().partition("/")[2]
    files = {name: str(folder / name) for name in ("file", "disk", "out", "vm_file")}
    (folder / "file").write_text("#cloud-config\n")
    (folder / "disk").write_bytes(qcow2())
    spec = filled(kinds()["vms"].message, 0)["spec"]
    (folder / "vm_file").write_text(yaml.safe_dump({"name": "vms/x", "spec": spec}))
    for way in (*WAYS, f"vm create {{new}} {VM_OPTIONS} --dry-run",
                f"vm create {{new}} --image debian-12 {VM_OPTIONS} --dry-run",
                f"vm modify {{vm}} {VM_OPTIONS} --dry-run"):  # fmt: skip
        before = len(seen)
        words = way.format(new=stage.fresh("f"), vm=stage.vm(), node=node, **files).split(" ")
        any_code(pvc, *words)
        assert len(seen) > before, f"pvc {way} asks for nothing"


def mutating() -> Iterator[str]:
    for name, method in methods().items():
        access = method.GetOptions().Extensions[options_pb2.access]
        fields = method.input_type.fields_by_name
        if access.role != options_pb2.ROLE_VIEWER and "validate_only" in fields:
            yield name.partition("/")[2]


def test_every_field_can_be_set(
    pvc: Any,
    stage: Stage,
    seen: list[tuple[str, Any]],
    tmp_path: Path,
) -> None:
    by_options(pvc, stage, tmp_path, seen)
    by_files(pvc, stage, tmp_path)
    said: dict[str, set[str]] = {}
    for method, request in seen:
        said.setdefault(method, set()).update(set_paths(request))
    missing = {}
    for name, method in methods().items():
        short = name.partition("/")[2]
        if short in set(mutating()) - ELSEWHERE:
            wanted = {path for path, _ in leaves(method.input_type)} - THE_CLIENTS
            if left := {one for one in wanted - said.get(short, set()) if "etag" not in one}:
                missing[short] = sorted(left)
    assert not missing


def test_every_option_of_a_vm_is_among_those_that_are_tried() -> None:
    from shell.commands.vm_options import place_options, shape_options

    @click.command()
    @shape_options
    @place_options
    def all_of_them() -> None:
        """Has them."""

    for option in all_of_them.params:
        assert set([*option.opts, *option.secondary_opts]) & set(VM_OPTIONS.split(" ")), option.opts


ENUMS = [
    (path, field)
    for path, command in every_command()
    for field in fields_of(command)
    if isinstance(field.type, click.Choice)
]


@pytest.mark.parametrize(("path", "field"), ENUMS, ids=lambda one: str(one))
def test_choices_are_the_contracts_own(path: str, field: Any) -> None:
    kind = field.descriptor().enum_type
    assert kind is not None
    assert set(field.type.choices) <= set(enum_words(kind).values())


FIELDS: list[tuple[str, FieldOption | FieldArgument]] = [
    (path, field) for path, command in every_command() for field in fields_of(command)
]


def test_every_field_of_an_option_is_in_the_contract() -> None:
    assert len(FIELDS) > 100
    for path, field in FIELDS:
        assert field.descriptor() is not None, path


LINES: Sequence[tuple[str, str]] = (
    ("vm create web --vcpus 0", "--vcpus' / '--cpus': must be between 1 and 512 (got 0)"),
    ("vm create web --memory 1M", "--memory': must be between 64M and 16T (got 1M)"),
    ("vm create Web", "NAME': must be lower-case letters"),
    ("vm create web --tag a/b", "--tag': must be letters, digits"),
    ("vm modify web --max-downtime 1", "--max-downtime': must be between 10 and 60000"),
    ("vm memory set web 1", "MEMORY': must be between 64M and 16T (got 1M)"),
    ("vm attach-disk web local/x --boot-order 99", "--boot-order': must be between 1 and 64"),
    ("volume resize local/x 1K", "SIZE': must be between 1M and 64T (got 1K)"),
    ("network create lan --mtu 10", "must be between 576 and 9216 (got 10)"),
    ("cluster set --fence-max-percent 101", "--fence-max-percent': must be between 1 and 100"),
    ("cluster set --audit-entries 99", "--audit-entries': must be between 100 and 50000"),
    ("node update n1 --max-vms 10001", "--max-vms': must be between 1 and 10000"),
    ("pool create p --path relative", "--path': must be an absolute path"),
    ("snapshot create local/x UPPER", "SNAPSHOT]': must be lower-case letters"),
)


@pytest.mark.parametrize(("line", "told"), LINES)
def test_what_breaks_a_rule_is_told_of_before_anything_is_sent(
    line: str,
    told: str,
    pvc: Any,
    seen: list[tuple[str, Any]],
) -> None:
    err = pvc(*line.split(" "), code=2)[1]
    assert told in err and not seen


REFUSED: Callable[[Stage], Sequence[tuple[str, str]]] = lambda stage: (  # noqa: E731
    (f"vm modify {stage.vm()} --max-memory 64M", "[--memory]"),
    (f"vm modify {stage.vm()} --vcpus 4 --max-vcpus 2", "[--vcpus]"),
    ("vm create {new} --disk local/nothing", "[--disk]"),
    (f"vm attach-nic {stage.vm()} nowhere", "[NETWORK]"),
    (f"vm attach-nic {stage.vm()} default --mac zz", "--mac must be a unicast MAC address"),
    ("network create {new} --ipnet 10.0.0.1/24", "--ipnet must be an IPv4 network"),
    ("vm create {new} --start-after nobody", "[--start-after]"),
)


def test_what_a_service_says_of_a_field_is_told_of_the_option(
    pvc: Any,
    stage: Stage,
    whole: Whole,
) -> None:
    for line, told in REFUSED(stage):
        err = pvc(*line.format(new=stage.fresh("f")).split(" "), code=1)[1]
        assert told in err, err


def test_of_several_things_too(pvc: Any, stage: Stage) -> None:
    first, second = stage.vm(), stage.vm()
    err = pvc("vm", "migrate", first, second, "--node", "nowhere", code=4)[1]
    assert err.count("nodes/nowhere does not exist") == 2 and err.count("[--node]") == 2, err
