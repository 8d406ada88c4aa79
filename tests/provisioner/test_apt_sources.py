"""Where packages come from: this machine's Debian archives, and nobody else's."""

import pytest

from services.provisioner.core.apt_sources import (
    AptSource,
    apt_settings,
    check_mirrors,
    debian_sources,
    guest_line,
    parse_deb822,
    parse_sources,
    source_line,
)
from services.provisioner.core.problem import FieldProblem

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEB822 = f"""\
Types: deb deb-src
# a comment
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
 bookworm-backports
Components: main contrib
Signed-By: {KEYRING}

Types: deb
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://download.docker.com/linux/debian
Suites: bookworm
Components: stable
Signed-By: /etc/apt/keyrings/docker.asc

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://other.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_deb822() -> None:
    sources = parse_deb822(DEB822)
    assert [s.suite for s in sources] == [
        *("bookworm", "bookworm-updates", "bookworm-backports", "bookworm-security"),
        *("bookworm", "bookworm"),
    ]
    assert sources[0].signed_by == KEYRING and sources[-1].signed_by == ""


def test_one_line() -> None:
    text = (
        "# deb http://commented.example/debian bookworm main\n"
        "deb-src http://mirror.example.org/debian bookworm main\n"
        f"deb [arch=amd64 signed-by={KEYRING}] http://mirror.example.org/debian bookworm main # x\n"
        "deb http://mirror.example.org/debian-security/ bookworm-security main contrib\n"
        "nonsense\ndeb\ndeb [x\n"
    )
    assert parse_sources(text) == (
        AptSource("http://mirror.example.org/debian", "bookworm", ("main",), KEYRING),
        AptSource(
            "http://mirror.example.org/debian-security/", "bookworm-security", ("main", "contrib")
        ),
    )


def test_only_debian_is_taken_and_turned_to_the_release() -> None:
    lines = [source_line(s) for s in debian_sources(parse_deb822(DEB822), "trixie")]
    assert lines == [
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian trixie main",
        f"deb [signed-by={KEYRING}] http://mirror.example.org/debian trixie-updates main",
        "deb http://mirror.example.org/debian-security trixie-security main",
        "deb https://other.example/debian trixie main",
    ]


@pytest.mark.parametrize(
    "source",
    [
        AptSource("http://mirror.example.org/debian", "other-bookworm", ("main",)),
        AptSource("http://x.example/debian", "bookworm", ("main",), "/etc/apt/keyrings/x.gpg"),
        AptSource("http://x.example/pgdg", "bookworm", ("main",)),
        AptSource("http://x.example/debian", "bookworm", ("stable",)),
        AptSource("cdrom:[Debian]/debian", "bookworm", ("main",)),
        AptSource("http://x.example/$(id)/debian", "bookworm", ("main",)),
    ],
)
def test_foreign_archives_are_left_out(source: AptSource) -> None:
    with pytest.raises(FieldProblem) as caught:
        debian_sources([source], "bookworm")
    assert caught.value.field == "mirrors" and "setting" in caught.value.why


def test_mirrors_setting_is_taken_as_it_is() -> None:
    line = f"deb [signed-by={KEYRING}] http://mirror.lan:3142/debian bookworm main contrib"
    assert [source_line(s) for s in check_mirrors([line])] == [line]


@pytest.mark.parametrize(
    "line",
    ["", "http://x/debian bookworm main", "deb http://x/debian", "deb ftp://x/y bookworm main",
     "deb http://x/debian bookworm main\ndeb http://y/debian sid main", "deb http://x/$(id) a main",
     "deb http://x/debian bookworm ../x", "deb http://x/de'bian bookworm main", "# deb"],
)  # fmt: skip
def test_hostile_mirrors(line: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        check_mirrors(["deb http://mirror.example.org/debian bookworm main", line])
    assert caught.value.field == "mirrors[1]"


def test_no_password_gets_into_the_guest() -> None:
    source = AptSource("https://user:secret@mirror.lan:8443/debian", "bookworm", ("main",))
    assert guest_line(source) == "deb https://mirror.lan:8443/debian bookworm main"


def test_settings_of_the_machine() -> None:
    dump = (
        'Acquire "";\nAcquire::http::Proxy "http://proxy:3128";\nAPT::Sandbox::User "_apt";\n'
        'Acquire::Check-Valid-Until "false";\nAcquire::Retries "";\nAcquire::https::Proxy "a"b";\n'
    )
    assert apt_settings(dump) == (
        'Acquire::Check-Valid-Until "false"',
        'Acquire::http::Proxy "http://proxy:3128"',
    )
