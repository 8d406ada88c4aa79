"""What cloud-init finds in a VM: the checks of its texts and what PVC adds to them.

Parsing and rendering YAML and making the disk are the drivers' work (`drivers/seed_iso.py`).
"""

import email
import re
from collections.abc import Mapping, Sequence
from typing import Any

from services.provisioner.core.problem import FieldProblem

USER_DATA_BYTES_MAX = 131072
OTHER_BYTES_MAX = 65536

CLOUD_CONFIG = "#cloud-config"
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_INSTANCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_text(text: str, field: str, bytes_max: int) -> None:
    """Refuses what no text for cloud-init may be: too long, or with characters of no text."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise FieldProblem(field, "must be valid Unicode") from error
    if size > bytes_max:
        raise FieldProblem(field, f"has {size} bytes; at most {bytes_max} are accepted")
    if "\0" in text:
        raise FieldProblem(field, "must not contain NUL")


def check_user_data(text: str, field: str) -> bool:
    """Refuses user data that cloud-init would ignore; True if it is YAML (#cloud-config)."""
    check_text(text, field, USER_DATA_BYTES_MAX)
    first = text.split("\n", 1)[0].rstrip("\r ")
    if first == CLOUD_CONFIG:
        return True
    if first.startswith("#!") and len(first) > 2:
        return False
    if _is_mime(text):
        return False
    raise FieldProblem(
        field,
        "must begin with a line '#cloud-config', with '#!' (a script) or with the header of a MIME "
        "multipart text; cloud-init would ignore it otherwise",
    )


def _is_mime(text: str) -> bool:
    if not re.match(r"(content-type|mime-version):", text, re.IGNORECASE):
        return False
    message = email.message_from_string(text)
    return message.is_multipart() and not message.defects


def check_mapping(value: object, field: str) -> Mapping[str, Any]:
    """A parsed YAML text that has to be a mapping with texts as keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FieldProblem(field, "must be a YAML mapping with texts as keys")
    return value


def meta_data(given: Mapping[str, Any], instance_id: str, host_name: str) -> dict[str, Any]:
    """The meta data: the user's, with the two keys that cloud-init needs unless given there."""
    merged = {"instance-id": instance_id, "local-hostname": host_name, **given}
    for key, pattern in (("instance-id", _INSTANCE_ID), ("local-hostname", _HOST_NAME)):
        value = merged[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise FieldProblem(
                f"cloud_init.meta_data.{key}", f"must be a text that looks like {pattern.pattern}"
            )
    return merged


def network_data(given: Mapping[str, Any] | None, macs: Sequence[str]) -> dict[str, Any] | None:
    """The network data, version 2; without the user's own: DHCP on the interfaces of the VM.

    None when neither is known: cloud-init then takes DHCP on the first interface it finds.
    """
    if given is not None:
        # cloud-init accepts the mapping as it is or below one key, `network`.
        inner = given.get("network", given)
        if not isinstance(inner, dict) or inner.get("version") != 2:
            raise FieldProblem("cloud_init.network_data", "must be version 2 ('version: 2')")
        return dict(given)
    if not macs:
        return None
    ethernets = {
        f"eth{i}": {"match": {"macaddress": mac}, "set-name": f"eth{i}", "dhcp4": True}
        for i, mac in enumerate(macs)
    }
    return {"version": 2, "ethernets": ethernets}
