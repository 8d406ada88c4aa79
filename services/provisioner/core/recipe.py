"""An image recipe: what a guest image is made of, read strictly from TOML.

Every value that later reaches a command, a path or a configuration file is checked here, by name.
"""

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from services.provisioner.core.problem import FieldProblem

# Raise it whenever the builder makes something else of the same recipe: it is part of the hash.
BUILDER_VERSION = 2

# What the contract lets through as one text.
RECIPE_BYTES_MAX = 131072
SIZE_MIB_MIN, SIZE_MIB_MAX = 512, 64 * 1024
PACKAGES_MAX = 1000

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_RELEASE = re.compile(r"[a-z]{3,30}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,15}")
_KERNEL_ARGUMENT = re.compile(r"[A-Za-z0-9_.,:=/@+-]{1,200}")
_UNIT = re.compile(r"[A-Za-z0-9@_.:-]{1,120}\.(service|socket|timer|mount|automount|path|target)")
_GENERATOR = re.compile(r"[a-z][a-z0-9-]{0,60}-generator")
_CLOUD_MODULE = re.compile(r"[a-z][a-z0-9_-]{0,60}")
_PATH = re.compile(r"(/[A-Za-z0-9_@%+=:,.-]+){1,32}")
_MODE = re.compile(r"0?[0-7]{3}")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of the image: its path inside, its text and its permission bits."""

    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class CloudInit:
    """The cloud-init modules to run, in order, in its three stages."""

    init: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    final: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a guest image is made of. `size_mib` is the size of the disk the guest sees."""

    name: str
    description: str
    release: str
    packages: tuple[str, ...]
    size_mib: int = 2048
    root_label: str = "root"
    kernel_arguments: tuple[str, ...] = ()
    masked_units: tuple[str, ...] = ()
    masked_generators: tuple[str, ...] = ()
    initramfs_modules: tuple[str, ...] = ()
    cloud_init: CloudInit = CloudInit()
    files: tuple[ImageFile, ...] = field(default=())


def content_hash(recipe: Recipe) -> str:
    """Names the image that this builder makes of this recipe (64 hexadecimal digits)."""
    value = {"builder": BUILDER_VERSION, "recipe": asdict(recipe)}
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_recipe(text: str) -> Recipe:
    """Reads a recipe file; raises FieldProblem naming the field that is wrong."""
    try:
        size = len(text.encode())
        if size > RECIPE_BYTES_MAX:
            raise FieldProblem("", f"the recipe has {size} bytes, more than {RECIPE_BYTES_MAX}")
        table = tomllib.loads(text)
    except UnicodeEncodeError as error:
        raise FieldProblem("", "the recipe is not valid Unicode") from error
    except tomllib.TOMLDecodeError as error:
        raise FieldProblem("", f"the recipe is not valid TOML: {error}") from error
    _refuse_unknown(table, [f.name for f in fields(Recipe)], "")
    return _recipe(table)


def _recipe(table: Mapping[str, Any]) -> Recipe:
    return Recipe(
        name=_text(table, "name", _NAME, "small letters, digits, '.' and '-'"),
        description=_description(table),
        release=_text(table, "release", _RELEASE, "a Debian release's code name"),
        packages=_packages(table),
        size_mib=_size_mib(table),
        root_label=_text(table, "root_label", _LABEL, "up to 16 letters, digits, '_', '-'", "root"),
        kernel_arguments=_texts(table, "kernel_arguments", _KERNEL_ARGUMENT),
        masked_units=_texts(table, "masked_units", _UNIT),
        masked_generators=_texts(table, "masked_generators", _GENERATOR),
        initramfs_modules=_texts(table, "initramfs_modules", _CLOUD_MODULE),
        cloud_init=_cloud_init(table.get("cloud_init", {})),
        files=_files(table.get("files", [])),
    )


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    names = sorted(known)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)
            raise FieldProblem(
                f"{where}{key}", f"there is no such key; did you mean '{near[0]}'? ({_list(names)})"
            )


def _list(names: Iterable[str]) -> str:
    return "known: " + ", ".join(names)


def _checked(value: object, pattern: re.Pattern[str], where: str, wanted: str) -> str:
    if not isinstance(value, str):
        raise FieldProblem(where, f"must be a text, not {type(value).__name__}")
    if not pattern.fullmatch(value):
        raise FieldProblem(where, f"{_shown(value)} is not accepted: {wanted}")
    return value


def _shown(value: str) -> str:
    return ascii(value if len(value) <= 60 else value[:57] + "...")


def _text(
    table: Mapping[str, Any], key: str, pattern: re.Pattern[str], wanted: str, default: str = ""
) -> str:
    if key not in table and default:
        return default
    if key not in table:
        raise FieldProblem(key, "is missing")
    return _checked(table[key], pattern, key, wanted)


def _texts(table: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    return _text_list(table.get(key, []), key, pattern)


def _text_list(value: object, where: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise FieldProblem(where, "must be a list of texts")
    if len(value) > PACKAGES_MAX:
        raise FieldProblem(where, f"has more than {PACKAGES_MAX} entries")
    wanted = f"it must look like {pattern.pattern}"
    texts = [_checked(v, pattern, f"{where}[{i}]", wanted) for i, v in enumerate(value)]
    for i, text in enumerate(texts):
        if text in texts[:i]:
            raise FieldProblem(f"{where}[{i}]", f"{_shown(text)} is there twice")
    return tuple(texts)


def _description(table: Mapping[str, Any]) -> str:
    value = table.get("description", "")
    if not isinstance(value, str) or len(value) > 1000 or not (value + "x").isprintable():
        raise FieldProblem("description", "must be one printable line of up to 1000 characters")
    return value


def _packages(table: Mapping[str, Any]) -> tuple[str, ...]:
    packages = _texts(table, "packages", _PACKAGE)
    if not packages:
        raise FieldProblem("packages", "is missing: a bootable image needs at least a kernel")
    return packages


def _size_mib(table: Mapping[str, Any]) -> int:
    value = table.get("size_mib", 2048)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FieldProblem("size_mib", "must be a whole number of mebibytes")
    if not SIZE_MIB_MIN <= value <= SIZE_MIB_MAX:
        raise FieldProblem("size_mib", f"must be between {SIZE_MIB_MIN} and {SIZE_MIB_MAX}")
    return value


def _cloud_init(value: object) -> CloudInit:
    if not isinstance(value, dict):
        raise FieldProblem("cloud_init", "must be a table with init, config and final")
    stages = [f.name for f in fields(CloudInit)]
    _refuse_unknown(value, stages, "cloud_init.")
    lists = {s: _text_list(value.get(s, []), f"cloud_init.{s}", _CLOUD_MODULE) for s in stages}
    return CloudInit(**lists)


def _files(value: object) -> tuple[ImageFile, ...]:
    if not isinstance(value, list):
        raise FieldProblem("files", "must be a list of tables ([[files]])")
    files = tuple(_file(table, f"files[{i}]") for i, table in enumerate(value))
    for i, file in enumerate(files):
        if any(file.path == other.path for other in files[:i]):
            raise FieldProblem(f"files[{i}].path", f"{_shown(file.path)} is there twice")
    return files


def _file(table: object, where: str) -> ImageFile:
    if not isinstance(table, dict):
        raise FieldProblem(where, "must be a table with path, content and mode")
    _refuse_unknown(table, [f.name for f in fields(ImageFile)], f"{where}.")
    path = _checked(table.get("path"), _PATH, f"{where}.path", "an absolute, plain path")
    if any(part in (".", "..") for part in path.split("/")):
        raise FieldProblem(f"{where}.path", f"{_shown(path)} must not contain '.' or '..'")
    content = table.get("content")
    if not isinstance(content, str) or "\0" in content:
        raise FieldProblem(f"{where}.content", "must be a text without NUL")
    mode = _checked(table.get("mode", "0644"), _MODE, f"{where}.mode", "three octal digits, '0644'")
    return ImageFile(path, content, int(mode, 8))
