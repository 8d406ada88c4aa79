"""The configuration file: defaults, every way to get it wrong, and the sample."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.core.v1 import reason_pb2
from services.mesh import config
from services.mesh.errors import PvcError


def refusal(text: str) -> str:
    with pytest.raises(PvcError) as caught:
        config.parse(text, "/etc/pvc/pvc.toml")
    assert caught.value.reason == reason_pb2.REASON_INVALID_CONFIG
    return caught.value.message


def test_defaults() -> None:
    one = config.parse("", "x")
    assert one.node.name
    assert one.node_name == f"nodes/{one.node.name}"
    assert (one.node.state_dir, one.node.run_dir) == ("/var/lib/pvc", "/run/pvc")
    assert one.state.driver == "sqlite"
    assert one.addresses()["compute"] == "unix:/run/pvc/mesh/compute.sock"
    assert one.public_addresses() == {}
    assert one.gateway.rest_listen.startswith("127.0.0.1:")


def test_settings_are_taken_over() -> None:
    one = config.parse(
        """
        [node]
        name = "n1"
        [mesh]
        listen = "10.0.0.1"
        first_port = 9000
        [state]
        driver = "zookeeper"
        hosts = ["zk1:2181", "[fe80::1]:2181"]
        [compute]
        accelerator = "tcg"
        [gateway]
        allowed_origins = ["https://a.example.org:8443", "http://[fe80::1]", "*"]
        """,
        "x",
    )
    assert one.gateway.allowed_origins[0] == "https://a.example.org:8443"
    assert one.node_name == "nodes/n1"
    assert one.public_addresses()["coordinator"] == "10.0.0.1:9004"
    assert len(set(one.public_addresses().values())) == len(config.SERVICES)
    assert one.state.hosts == ("zk1:2181", "[fe80::1]:2181")
    assert one.compute.accelerator == "tcg"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[nod]", '/etc/pvc/pvc.toml: there is no section "nod"; did you mean "node"?'),
        ("x = 1", 'there is no section "x"'),
        ("node = 1", "node must be a section"),
        ("[node]\nnam = 'a'", '[node] has no key "nam"; did you mean "name"?'),
        ("[node]\nname = 1", "[node] name: Expected `str`, got `int`"),
        ("[node]\nname = 'A b'", 'name must be lower-case letters, digits and hyphens, 1 to 63'),
        ("[node]\nstate_dir = 'var'", "state_dir must be an absolute path"),
        ("[node]\nrun_dir = '/run/../etc'", "run_dir must be an absolute path"),
        ("[node]\nlog_level = 'loud'", "[node] log_level: Invalid enum value 'loud'"),
        ("[gateway]\nallowed_origins = ['example.org']", "allowed_origins must be a list of"),
        ("[gateway]\nallowed_origins = ['https://a/']", "allowed_origins must be a list of"),
        ("[compute]\nreserved_memory_mib = -1", "reserved_memory_mib: Expected `int` >= 0"),
        ("[compute]\naccelerator = 'xen'", "accelerator"),
        ("[compute]\nmigration_host = 'n1'", "migration_host must be left out"),
        (
            "[compute]\nlibvirt_uri = 'qemu:///system'\nmigration_host = 'n 1'",
            "migration_host must be a host name or IP address",
        ),
        ("[state]\ndriver = 'etcd'", "driver"),
        ("[state]\nhosts = 'a:1'", "hosts"),
        ("[state]\nhosts = ['a']", "hosts must be host:port"),
        ("[state]\ndriver = 'zookeeper'\nhosts = []", "hosts must name at least one"),
        ("[mesh]\nlisten = 'n1'", "listen must be an IP address"),
        ("[gateway]\nrest_listen = '127.0.0.1'", "rest_listen must be host:port"),
        ("[gateway]\nrest_listen = '127.0.0.1:70000'", "rest_listen must be host:port"),
        ("[gateway]\ncertificate = '/a'", "key must be given together"),
        ("[network]\ndefault_cidr = '10.0.0.1/24'", "default_cidr must be an IPv4 network"),
        ("[network]\nnamespace = '../x'", "namespace must be letters"),
        ("[storage]\npool_path = 'x'", "pool_path must be an absolute path"),
        ("[node\n", "is not TOML"),
    ],
)  # fmt: skip
def test_mistakes_are_named(text: str, words: str) -> None:
    message = refusal(text)
    assert message.startswith("/etc/pvc/pvc.toml") and words in message


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pvc.toml"
    monkeypatch.setattr(config, "DEFAULT_PATH", file)
    monkeypatch.delenv(config.ENVIRONMENT, raising=False)
    assert config.load().cluster.name == "pvc"
    file.write_text("[cluster]\nname = 'one'")
    assert config.load().cluster.name == "one"
    other = tmp_path / "other.toml"
    monkeypatch.setenv(config.ENVIRONMENT, str(other))
    with pytest.raises(PvcError, match=re.escape(f"cannot read {other}")):
        config.load()
    other.write_text("[cluster]\nname = 'two'")
    assert config.load().cluster.name == "two"
    assert config.load(file).cluster.name == "one"
    other.write_bytes(b"\xff\xfe")
    with pytest.raises(PvcError, match="cannot read"):
        config.load()


def test_the_sample_explains_every_setting_and_says_the_defaults() -> None:
    text = config.sample()
    for name, kind in config.SECTIONS.items():
        assert f"[{name}]" in text
        for key in kind.__struct_fields__:
            assert re.search(rf"^# .+\n#{key} = ", text, re.MULTILINE), f"{name}.{key}"
    assert max(map(len, text.splitlines())) <= 100
    assert config.parse(text, "x") == config.parse("", "x")
    uncommented = re.sub(r"^#(?! )", "", text, flags=re.MULTILINE)
    assert config.parse(uncommented, "x") == config.parse("", "x")


VALUES = st.one_of(
    st.text(max_size=20), st.integers(), st.booleans(), st.lists(st.text(max_size=5), max_size=2)
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_value_is_taken_or_refused_by_name(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(config.SECTIONS)))
    key = data.draw(st.sampled_from(config.SECTIONS[name].__struct_fields__))
    try:
        config._section(name, config.SECTIONS[name], {key: data.draw(VALUES)}, "x")
    except PvcError as error:
        assert f"[{name}]" in error.message and key in error.message


def test_the_documented_file_is_what_the_settings_say() -> None:
    """docs/pvc.toml is `sample()`, written down for readers."""
    documented = Path(__file__).parents[2] / "docs" / "pvc.toml"
    assert documented.read_text() == config.sample()
