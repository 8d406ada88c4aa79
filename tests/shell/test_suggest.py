"""Where the words of a line lead in the tree, and what may stand at the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from shell.main import pvc
from shell.prompt.completer import files
from shell.prompt.offers import Offer, Offers
from shell.prompt.speech import Plain
from shell.suggest import Slot, place_of

NAMES = {
    "vms": {"web": "running  n1", "web-2": "stopped  n1", "db": "running  n2", "it's": ""},
    "networks": {"default": "ready"},
    "nodes": {"n1": "online", "n2": "online"},
}


class Known:
    """A few names and files."""

    def names(
        self, collection: str, typed: str, limit: int, parent: str = ""
    ) -> Sequence[tuple[str, str]]:
        """See Known."""
        if parent:
            return [(f"{collection}-of-{parent}", "")]
        found = NAMES.get(collection, {})
        return [(n, told) for n, told in found.items() if n.startswith(typed)][:limit]

    def connections(self) -> Sequence[tuple[str, str]]:
        """See Known."""
        return [("prod", "the real one"), ("lab", "")]

    def files(self, typed: str) -> Sequence[tuple[str, str]]:
        """See Known."""
        return [(typed + "a file", ""), (typed + "folder/", "folder"), ("other", "")]


def offered(line: str, speech: Plain | None = None) -> list[Offer]:
    """What is offered where the | stands, at the end without one."""
    at = line.index("¦") if "¦" in line else len(line)
    return Offers(pvc, Known(), speech or Plain()).at(line.replace("¦", ""), at)


def texts(line: str, speech: Plain | None = None) -> list[str]:
    return [offer.text for offer in offered(line, speech)]


def after(line: str, number: int = 0) -> str:
    """The line once the offer of that number is taken."""
    at = line.index("¦") if "¦" in line else len(line)
    plain = line.replace("¦", "")
    offer = offered(line)[number]
    return plain[: at - offer.back] + offer.ready + plain[at:]


@pytest.mark.parametrize(
    ("line", "path", "slot", "typed"),
    [
        ("", (), Slot.COMMAND, ""),
        ("vm sta", ("vm",), Slot.COMMAND, "sta"),
        ("vm start ", ("vm", "start"), Slot.VALUE, ""),
        ("vm start --no-", ("vm", "start"), Slot.OPTION, "--no-"),
        ("vm list --format=js", ("vm", "list"), Slot.VALUE, "js"),
        ("vm list -fjs", ("vm", "list"), Slot.VALUE, "js"),
        ("vm list -wf js", ("vm", "list"), Slot.VALUE, "js"),
        ("vm list -w ", ("vm", "list"), Slot.VALUE, ""),
        ("vm list -- -x", ("vm", "list"), Slot.VALUE, "-x"),
        ("-c here vm ", ("vm",), Slot.COMMAND, ""),
        ("task w", ("operation",), Slot.COMMAND, "w"),
        ("vm fly web", ("vm",), Slot.LOST, "web"),
        ("vm rename a b c", ("vm", "rename"), Slot.SURPLUS, "c"),
        ("vm snapshot cr", ("vm", "snapshot"), Slot.COMMAND, "cr"),
    ],
)
def test_places(line: str, path: tuple[str, ...], slot: Slot, typed: str) -> None:
    *words, last = line.split(" ")
    place = place_of(pvc, words, last)
    assert (place.path, place.slot, place.typed) == (path, slot, typed)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vo", ["volume"]),
        ("vm sta", ["start"]),
        ("vm start ", ["web", "web-2", "db"]),
        ("vm start web ", ["web-2", "db"]),
        ("vm start 'we", ["web", "web-2"]),
        ("vm list -f js", ["json"]),
        ("vm list -fy", ["yaml"]),
        ("vm list --format=c", ["csv"]),
        ("vm list --node ", ["n1", "n2"]),
        ("vm list --state r", ["running"]),
        ("vm create web --firmware ", ["bios", "uefi"]),
        ("vm create web --mem", ["--memory", "--max-memory"]),
        ("vm attach-nic web ", ["default"]),
        ("vm snapshot cr", ["create"]),
        ("task w", ["wait"]),
        ("vm sta¦ web", ["start"]),
        ("vm start we¦ --no-wait", ["web", "web-2"]),
        ("vm start web; node ready n", ["n1", "n2"]),
        ("vm list --columns name,sta", ["state"]),
        ("vm list --columns +host", ["host_name"]),
        ("vm list --sort -mem", ["memory"]),
        ("vm list --filter stat", ["state"]),
        ("vm list --filter state=ru", ["running"]),
        ("vm list --filter 'state=running,st", ["stopped", "starting"]),
        ("vm list --filter 'state ", ["="]),
        ("vm list --filter 'state=running ", ["OR", "name"]),
        ("vm list --filter 'NOT no", ["node"]),
        ("vm list --filter node=", ["n1", "n2"]),
        ("vm list state=ru", ["running"]),
        ("vm list --filter memory>2G state=ru", ["running"]),
        ("vm list --filter memory>2G >", []),
        ("node list --filter 'state=draine", ["drained"]),
        ("vm create web --user-data ", ["a file", "folder/"]),
        ("vm list > ", ["a file", "folder/"]),
        ("connection remove p", ["prod"]),
        ("vm list we", ["web", "web-2"]),
        ("vm detach-disk web ", ["vms.disks-of-web"]),
        ("vm detach-nic web ", ["vms.nics-of-web"]),
        ("vm snapshot remove web ", ["vms.snapshots-of-web"]),
        ("snapshot delete local/x ", ["volumes.snapshots-of-local/x"]),
        ("storage volume list --sort si", ["size"]),
        ("vm snapshot list web --sort cl", []),
        ("explain vm.sp", ["vm.spec"]),
        ("call VmService/Sta", ["VmService/StartVm"]),
        ("audit info ", []),
    ],
)
def test_offers(line: str, expected: list[str]) -> None:
    assert texts(line)[: len(expected)] == expected


@pytest.mark.parametrize(
    "line",
    ["vm fly ", "vm rename web ", "vm list # sta", "!ls ", "vm create web --memory ", "nothing x"],
)
def test_nothing_is_offered_where_nothing_is_known(line: str) -> None:
    assert texts(line) == []


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("vm st", "vm start"),
        ("vm st¦art web", "vm start web"),
        ("vm start 'd", "vm start 'db'"),
        ('vm start "d', 'vm start "db"'),
        ("vm start it", "vm start 'it'\"'\"'s'"),
        ("vm list --format=js", "vm list --format=json"),
        ("vm list -fjs", "vm list -fjson"),
        ("vm list --filter 'state=running stat", "vm list --filter 'state=running state"),
        ("vm list --sort -mem", "vm list --sort -memory"),
        ("vm list > x", "vm list > 'xa file'"),
        ("vm create w --user-data x/", "vm create w --user-data 'x/a file'"),
    ],
)
def test_a_taken_offer_takes_the_place_of_the_word(line: str, taken: str) -> None:
    assert after(line) == taken


def test_offers_say_what_they_mean() -> None:
    found = {offer.text: offer.help for offer in offered("vm ")}
    assert found["start"] == "Switch VMs on."
    assert found["snapshot"] == "Snapshots of whole VMs"
    for line, text, help in (
        ("vm start ", "db", "running  n2"),
        ("vm list --state ", "crashed", "The emulator ended without being asked to"),
        ("vm list -f ", "csv", "columns, for spreadsheets"),
        ("vm create x --firmware ", "bios", "SeaBIOS"),
    ):
        assert {offer.text: offer.help for offer in offered(line)}[text] == help


def test_an_option_given_once_is_not_offered_again_unless_it_may_repeat() -> None:
    given = texts("vm create web --memory 1G --tag a --")
    assert "--memory" not in given and "--tag" in given
    assert "--wait" in given and "-y" not in given


class InContext(Plain):
    """As after `use vm web`."""

    context = "vm/web"
    place = ("vm",)

    def expanded(self, words: Sequence[str]) -> list[str]:
        """Puts the group and the name in."""
        if words[0] == "go":
            words = ["vm", "start", *words[1:]]
        if words[0] in ("start", "stop"):
            words = ["vm", *words]
        return [*words, "web"] if len(words) == 2 and words[0] == "vm" else list(words)

    def aliases(self) -> Sequence[tuple[str, str]]:
        """One."""
        return [("go", "vm start")]


def test_a_context_is_completed_in() -> None:
    assert texts("sta", InContext())[0] == "start"
    assert "start" not in texts("sta")
    assert all(text.startswith("--") for text in texts("start ", InContext()))
    assert texts("start d", InContext()) == ["db"]
    assert texts("no", InContext())[0] == "node"


def test_aliases_are_offered_and_followed() -> None:
    first = offered("go", InContext())[0]
    assert (first.text, first.help) == ("go", "= vm start")
    assert texts("go d", InContext()) == ["db"]


def test_files_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").touch()
    (tmp_path / "web.d").mkdir()
    (tmp_path / ".hidden").touch()
    assert [path for path, _ in files(f"{tmp_path}/w")] == [
        f"{tmp_path}/web.d/", f"{tmp_path}/web.yaml"
    ]  # fmt: skip
    assert (f"{tmp_path}/.hidden", "") in files(f"{tmp_path}/.h")
    assert files(f"{tmp_path}/none/") == []
