"""The client built as a package of its own, installed where nothing else of PVC is; its examples
run with that against a whole PVC."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.contract.whole import Whole, running

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "clients/python"
EXAMPLES = sorted(path.name for path in (PACKAGE / "examples").glob("*.py"))
NEEDED = ("grpcio", "protobuf", "googleapis-common-protos", "typing_extensions")
"""All that may be there beside it; the last one is grpcio's."""
STUBS = ("types-grpcio", "types-protobuf")
"""What mypy wants for these."""
WITHOUT_STUBS = ("google.rpc", "google.api")


@dataclass(frozen=True)
class Home:
    """An environment with the client in it, and what it needs."""

    folder: Path
    whole: Whole

    @property
    def python(self) -> str:
        return str(self.folder / "bin/python")

    def start(self, *command: str, **named: object) -> subprocess.Popen[str]:
        """Runs it isolated: no path but the environment's own."""
        environment = {
            "PVC_CONNECTION": f"127.0.0.1:{self.whole.doors.grpc_port}",
            "PVC_TOKEN": self.whole.secrets["eve"],
        }
        return subprocess.Popen(
            [self.python, "-I", "-u", *command], cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def example(self, name: str, *arguments: str) -> str:
        """What one of the examples prints."""
        started = self.start(str(PACKAGE / "examples" / name), *arguments)
        said, _ = started.communicate(timeout=60)
        return said


def link(package: str, target: Path) -> None:
    """Puts an installed distribution's modules where another environment finds them."""
    for file in distribution(package).files or ():
        source = Path(str(file.locate()))
        if source.suffix in (".py", ".pyi", ".so", ".typed", ".toml") and ".." not in file.parts:
            link = target / str(file)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("alone")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = folder / "built"
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(built), str(PACKAGE)]
    subprocess.run(build, check=True, timeout=120)
    venv.create(folder / "home")
    (site,) = (folder / "home").glob("lib/python*/site-packages")
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "-t", str(site), str(wheel)], check=True, timeout=60
    )
    for package in (*NEEDED, *STUBS):
        link(package, site)
    with running(tmp_path_factory.mktemp("pvc")) as whole:
        yield Home(folder / "home", whole)


@pytest.mark.real
def test_it_stands_alone(home: Home) -> None:
    program = """
import importlib.util, sys
assert not any(importlib.util.find_spec(name) for name in ("services", "shell", "click", "httpx"))
import pvc_client
assert pvc_client.__file__.startswith(sys.prefix), pvc_client.__file__
with pvc_client.Cluster.from_environment() as cluster:
    print(cluster.whoami().caller, cluster.status().leader)
"""
    said, _ = home.start("-c", program).communicate(timeout=60)
    assert said == "token eve nodes/n1\n"


@pytest.mark.real
def test_it_asks_for_no_more_than_it_needs(home: Home) -> None:
    (metadata,) = home.folder.glob("lib/python*/site-packages/pvc_client-*/METADATA")
    required = re.findall(r"^Requires-Dist: ([\w-]+)", metadata.read_text(), re.M)
    assert set(required) == set(NEEDED[:3])
    own, whole = (
        tomllib.loads((folder / "pyproject.toml").read_text()) for folder in (PACKAGE, ROOT)
    )
    assert own["project"]["version"] == whole["project"]["version"]
    assert set(own["project"]["dependencies"]) <= set(whole["project"]["dependencies"])


@pytest.mark.real
def test_the_examples_are_typed_for_whoever_installs_it(home: Home) -> None:
    settings = home.folder / "mypy.ini"
    ignored = "".join(f"[mypy-{name}.*]\nignore_missing_imports = True\n" for name in WITHOUT_STUBS)
    settings.write_text(f"[mypy]\nstrict = True\n{ignored}")
    examples = [f"examples/{name}" for name in EXAMPLES]
    mypy = [sys.executable, "-m", "mypy", "--cache-dir", str(home.folder / "cache")]
    mypy += ["--config-file", str(settings), "--python-executable", home.python, *examples]
    done = subprocess.run(mypy, cwd=PACKAGE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_the_examples_do_what_they_say(home: Home) -> None:
    tried = set()

    def example(name: str, *arguments: str) -> str:
        tried.add(name)
        return home.example(name, *arguments)

    assert example("make_vm.py") == "vms/hello runs on nodes/n1\n"
    three = sorted(example("make_vm_asyncio.py").splitlines())
    assert three == [f"vms/{name} runs on nodes/n1" for name in ("blue", "green", "red")]
    with home.whole.client() as cluster:
        cluster.vms.stop("hello").result(20)
    assert example("progress.py", "hello").splitlines()[-1].startswith("100 %")
    assert "there are: vms/blue, vms/green, vms/hello" in example("progress.py", "nothing")
    assert example("label.py", "hello", "owner", "ann") == "{'owner': 'ann'}\n"
    watch = home.start(str(PACKAGE / "examples/watch.py"), "hello")
    assert watch.stdout is not None and watch.stdout.readline() == "hello is RUNNING\n"
    assert "gone" in example("remove.py", "hello") and "not exist" in example("remove.py", "hello")
    said, _ = watch.communicate(timeout=60)
    assert said.splitlines()[-1] == "hello is gone"
    tried.add("watch.py")
    assert tried == set(EXAMPLES)
