"""YAML texts in and out, and the small CD-ROM on which cloud-init finds them.

The same content makes the same bytes: no clock, no random, no time zone gets in.
"""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pycdlib
import yaml
from pycdlib import dates

LABEL = "cidata"
DEPTH_MAX = 64
# 2000-01-01, as a directory record spells it, and as a volume descriptor spells its four dates:
# creation, modification, expiration (none) and effect (none).
_RECORD_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
_DATES = 2 * b"2000010100000000\0" + 2 * b"0000000000000000\0"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_HARMLESS = re.compile(r"(.|\\.|<[a-z ]+>)")
"""Single characters, and the parser's own "<block end>"."""
_FIRST_DESCRIPTOR, _VOLUME_DATES, _TERMINATOR = 16 * 2048, 813, 255


class InvalidYaml(ValueError):
    """A text that is not YAML, with the place."""


def parse_yaml(text: str) -> object:
    """Parses one document with plain values only; raises InvalidYaml."""
    try:
        _refuse_costly(text)
        return yaml.safe_load(text)
    except InvalidYaml:
        raise
    except yaml.MarkedYAMLError as error:
        raise InvalidYaml(_words_for(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        # Their texts quote the value at fault.
        raise InvalidYaml(f"it holds what no YAML text may ({type(error).__name__})") from None


def _words_for(error: yaml.MarkedYAMLError) -> str:
    """What is wrong and where. Not the line at fault, and no name in it: they may be a password."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    what = _QUOTED.sub(
        lambda found: found[0] if _HARMLESS.fullmatch(found[0][1:-1]) else "…",
        error.problem or error.context or "it cannot be read",
    )
    return ": ".join(filter(None, (where, what)))


def _refuse_costly(text: str) -> None:
    """Stops at what takes a parser more time or memory than its length: depth and aliases."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InvalidYaml("aliases ('*name') are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise InvalidYaml(f"it is nested more than {DEPTH_MAX} deep")


def render_yaml(value: Mapping[str, Any]) -> bytes:
    """The mapping as YAML, keys in the order given."""
    text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)
    return text.encode()


def seed_iso(files: Mapping[str, bytes]) -> bytes:
    """An ISO 9660 image labelled `cidata` with these files in its root (Joliet and Rock Ridge)."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, content) in enumerate(sorted(files.items())):
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    _fix_record_dates(iso)
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return _with_fixed_volume_dates(image.getvalue())


def _with_fixed_volume_dates(image: bytes) -> bytes:
    """The image with fixed dates in its volume descriptors, which are dated while being written."""
    fixed = bytearray(image)
    place = _FIRST_DESCRIPTOR
    while fixed[place] != _TERMINATOR:
        fixed[place + _VOLUME_DATES : place + _VOLUME_DATES + 68] = _DATES
        place += 2048
    return bytes(fixed)


def _fix_record_dates(iso: Any) -> None:
    """Puts one fixed date in place of the current one in every directory record."""
    for descriptor in (*iso.pvds, *iso.svds):
        for record in _records(descriptor.root_directory_record()):
            record.date = _record_date()
            if record.rock_ridge is not None:
                _fix_time_stamps(record.rock_ridge)


def _records(folder: Any) -> Iterator[Any]:
    yield folder
    # The seed has one folder; its children include '.' and '..'.
    yield from folder.children


def _fix_time_stamps(rock_ridge: Any) -> None:
    for entries in (rock_ridge.dr_entries, rock_ridge.ce_entries):
        stamps = None if entries is None else entries.tf_record
        if stamps is None:
            continue
        for name in ("access_time", "modification_time", "attribute_change_time"):
            if getattr(stamps, name) is not None:
                setattr(stamps, name, _record_date())


def _record_date() -> Any:
    date = dates.DirectoryRecordDate()
    date.parse(_RECORD_DATE)
    return date
