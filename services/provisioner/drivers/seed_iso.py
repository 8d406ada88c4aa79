"""YAML texts in and out, and the small CD-ROM on which cloud-init finds them.

The same content makes the same bytes: no clock, no random, no time zone gets in.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import pycdlib
import yaml
from pycdlib import dates

LABEL = "cidata"
# 2000-01-01, as a directory record (7 bytes) and a volume descriptor (17 bytes) spell it.
_RECORD_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
_VOLUME_DATE = b"2000010100000000\0"
_NO_DATE = b"0000000000000000\0"


class InvalidYaml(ValueError):
    """A text that is not YAML, with the place."""


def parse_yaml(text: str) -> object:
    """Parses one document with plain values only; raises InvalidYaml."""
    try:
        # A hundred levels of aliases expand to more than any memory holds; none is needed here.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InvalidYaml("aliases ('*name') are not accepted")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidYaml(" ".join(str(error).split()) or type(error).__name__) from error


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
    _fix_dates(iso)
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def _fix_dates(iso: Any) -> None:
    """Puts one fixed date in place of the current one that the library wrote everywhere."""
    for descriptor in (*iso.pvds, *iso.svds):
        descriptor.volume_creation_date = _volume_date(_VOLUME_DATE)
        descriptor.volume_modification_date = _volume_date(_VOLUME_DATE)
        descriptor.volume_expiration_date = _volume_date(_NO_DATE)
        descriptor.volume_effective_date = _volume_date(_NO_DATE)
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


def _volume_date(spelled: bytes) -> Any:
    date = dates.VolumeDescriptorDate()
    date.parse(spelled)
    return date
