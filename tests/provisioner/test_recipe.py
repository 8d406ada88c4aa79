"""Recipes: the built-in one, and every hostile value refused by the name of its field."""

import pytest

from services.provisioner.build import builtin_recipes
from services.provisioner.core.problem import FieldProblem
from services.provisioner.core.recipe import (
    ImageFile,
    Recipe,
    content_hash,
    parse_recipe,
)

LEAST = 'name = "x"\nrelease = "bookworm"\npackages = ["linux-image-cloud-amd64"]\n'


def refused(text: str) -> FieldProblem:
    with pytest.raises(FieldProblem) as caught:
        parse_recipe(text)
    return caught.value


def test_builtin_recipe_is_a_debian_with_all_a_demo_needs() -> None:
    recipe = parse_recipe(builtin_recipes()["debian-12"])
    assert recipe.name == "debian-12" and recipe.release == "bookworm"
    needed = {"systemd-sysv", "cloud-init", "qemu-guest-agent", "openssh-server", "busybox"}
    assert needed | {"python3-minimal", "linux-image-cloud-amd64"} <= set(recipe.packages)
    assert "runcmd" in recipe.cloud_init.final
    assert recipe.cloud_init.final.index("runcmd") < recipe.cloud_init.final.index("scripts-user")


def test_least_recipe_gets_the_defaults() -> None:
    assert parse_recipe(LEAST) == Recipe("x", "", "bookworm", ("linux-image-cloud-amd64",))


def test_files_and_modes() -> None:
    text = LEAST + '[[files]]\npath = "/etc/motd"\ncontent = "hi ☃\\n"\nmode = "0600"\n'
    assert parse_recipe(text).files == (ImageFile("/etc/motd", "hi ☃\n", 0o600),)


def test_hash_follows_the_content_and_not_the_layout_of_the_text() -> None:
    one = content_hash(parse_recipe(LEAST))
    assert one == content_hash(parse_recipe("# a comment\n" + LEAST))
    assert one != content_hash(parse_recipe(LEAST + "size_mib = 2049\n"))
    assert one != content_hash(parse_recipe(LEAST.replace('"x"', '"y"')))


def test_unknown_keys_name_the_nearest() -> None:
    problem = refused(LEAST + 'pakages = ["vim"]\n')
    assert problem.field == "pakages" and "did you mean 'packages'" in problem.why
    assert refused(LEAST + "[cloud_init]\nfinale = []\n").field == "cloud_init.finale"
    problem = refused(LEAST + '[[files]]\npath = "/a"\ncontents = "x"\n')
    assert problem.field == "files[0].contents" and "'content'" in problem.why


@pytest.mark.parametrize(
    "package",
    ["", "a b", "-o", "--include=x", "vim;id", "$(id)", "vim,emacs", "?installed", "./x.deb", "é",
     "../x", "/etc/passwd", "a\\u0000b", "Vim", "vim/sid", "vim=1", "`id`", "a\\nb", "a" * 101],
)  # fmt: skip
def test_hostile_package_names(package: str) -> None:
    problem = refused(LEAST.replace('"linux-image-cloud-amd64"', f'"ok", "{package}"'))
    assert problem.field == "packages[1]"


@pytest.mark.parametrize(
    "path",
    ["", "etc/motd", "/", "/etc/", "//etc/motd", "/etc/../../root/x", "/..", "/./x", "/a b",
     "/a\\nb", "/a\\u0000", "/a$(id)", "/a;b", "/a'b", "/ä", "/\\u202e/x", "/a" * 40],
)  # fmt: skip
def test_hostile_paths(path: str) -> None:
    problem = refused(LEAST + f'[[files]]\npath = "{path}"\ncontent = ""\n')
    assert problem.field == "files[0].path"


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("size_mib = 511", "size_mib"),
        ("size_mib = 99999999", "size_mib"),
        ("size_mib = true", "size_mib"),
        ('size_mib = "2048"', "size_mib"),
        ('root_label = "root partition"', "root_label"),
        ('root_label = "-Lx"', "root_label"),
        ('root_label = "a\\u0000"', "root_label"),
        ('root_label = "12345678901234567"', "root_label"),
        ('kernel_arguments = ["quiet; reboot"]', "kernel_arguments[0]"),
        ('kernel_arguments = ["a\\n}"]', "kernel_arguments[0]"),
        ('kernel_arguments = ["$root"]', "kernel_arguments[0]"),
        ('kernel_arguments = "quiet"', "kernel_arguments"),
        ('masked_units = ["../../../etc/passwd"]', "masked_units[0]"),
        ('masked_units = ["a/b.service"]', "masked_units[0]"),
        ('masked_units = ["a.timer", "a.timer"]', "masked_units[1]"),
        ('masked_generators = ["../x-generator"]', "masked_generators[0]"),
        ('initramfs_modules = ["../x"]', "initramfs_modules[0]"),
        ('description = "two\\nlines"', "description"),
        ("description = 1", "description"),
        ("files = 1", "files"),
        ("files = [1]", "files[0]"),
        ('files = [{path = "/a", content = "x\\u0000"}]', "files[0].content"),
        ('files = [{path = "/a"}]', "files[0].content"),
        ('files = [{path = "/a", content = "", mode = "4755"}]', "files[0].mode"),
        ('files = [{path = "/a", content = "", mode = 420}]', "files[0].mode"),
        ('files = [{path = "/a", content = ""}, {path = "/a", content = ""}]', "files[1].path"),
        ('cloud_init = {final = ["../x"]}', "cloud_init.final[0]"),
        ("cloud_init = 1", "cloud_init"),
    ],
)
def test_hostile_values(line: str, field: str) -> None:
    assert refused(LEAST + line + "\n").field == field


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", '"../x"'), ("name", '""'), ("name", "1"), ("name", '"a/b"'), ("name", '"-x"'),
        ("release", '"bookworm; id"'), ("release", '"../x"'), ("release", '"--mode"'),
        ("packages", "[]"), ("packages", '"vim"'), ("packages", "[1]"),
    ],
)  # fmt: skip
def test_hostile_required_values(key: str, value: str) -> None:
    lines = [line for line in LEAST.splitlines() if not line.startswith(key)]
    assert refused("\n".join([f"{key} = {value}", *lines])).field in (key, f"{key}[0]")
    assert refused("\n".join(lines)).field == key


def test_text_that_is_no_recipe() -> None:
    assert "not valid TOML" in refused("= =").why
    assert "more than" in refused("#" * 200_000).why
    assert "Unicode" in refused(LEAST + 'description = "\ud800"\n').why
