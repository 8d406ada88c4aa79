"""Short names of resources and their full ones: "web" → "vms/web", "local/web-root" →
"pools/local/volumes/web-root".

Pure. Whether a name exists is the server's business; only its form is checked here.
"""

from __future__ import annotations

from pvc_client.errors import InvalidField


def full_name(path: str, short: str, field: str = "name") -> str:
    """The resource name that `short` stands for in the collections of `path` ("pools/volumes").

    A full name is given back as it is. Raises InvalidField when it has too few or too many parts.
    """
    collections = path.split("/")
    parts = short.strip("/").split("/")
    if len(parts) == 2 * len(collections) and parts[::2] == collections:
        return "/".join(parts)
    if len(parts) == len(collections) and all(parts):
        return "/".join(word for pair in zip(collections, parts, strict=True) for word in pair)
    shape = "/".join(one.removesuffix("s").upper() for one in collections)
    raise InvalidField(f"{short!r} does not name one of {path}: write {shape}", field=field)


def short_name(name: str) -> str:
    """The ids of a full name: "pools/local/volumes/web-root" → "local/web-root"."""
    return "/".join(name.split("/")[1::2])


def last_id(name: str) -> str:
    """The last id of a name: "pools/local/volumes/web-root" → "web-root"."""
    return name.rpartition("/")[2]


def parent_of(name: str) -> str:
    """The resource that a resource lives in: "pools/local/volumes/x" → "pools/local"; "" at the
    top."""
    return "/".join(name.split("/")[:-2])
