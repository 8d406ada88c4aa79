"""Reads and changes a domain's XML for its way to another node: what it needs there, and where
images that are copied along are there. Looks whether files exist; changes none."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path


def missing_files(xml: str, copied: Collection[str] = ()) -> tuple[str, ...]:
    """What a domain like this one needs of this node's files and does not find, one sentence each.
    copied: images that are copied along; they have other names here."""
    root = ET.fromstring(xml)
    return (*_disks(root, copied), *_others(root))


def with_files(xml: str, files: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The XML with these images in the places of those, and the names of the drives whose contents
    the hypervisor copies: not of those that the guest cannot write, which it refuses to. What comes
    in stands on no other image."""
    root, targets = ET.fromstring(xml), []
    for disk in root.iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        path = source.get("file", "") if source is not None else ""
        if source is not None and target is not None and path in files:
            source.set("file", files[path])
            for below in disk.findall("backingStore"):
                disk.remove(below)
            if disk.find("readonly") is None:
                targets.append(target.get("dev", ""))
    return ET.tostring(root, encoding="unicode"), tuple(targets)


def _disks(root: ET.Element, copied: Collection[str]) -> Iterator[str]:
    for disk in root.iterfind("devices/disk"):
        source, driver = disk.find("source"), disk.find("driver")
        path = source.get("file", "") if source is not None else ""
        if not path or path in copied:
            continue
        if not Path(path).exists():
            yield f"the image {path} is not on this node"
        if driver is not None and driver.get("cache") == "unsafe":
            yield (
                f"its disk {path} ignores flushes: what the guest wrote may still be in the cache "
                "of its node; give the disk another cache and restart the VM"
            )


def _others(root: ET.Element) -> Iterator[str]:
    for log in root.iterfind("devices/serial/log"):
        folder = Path(log.get("file", "")).parent
        if not folder.is_dir():
            yield f"the folder of its console log, {folder}, is not on this node"
    loader, nvram = root.findtext("os/loader"), root.findtext("os/nvram")
    if loader and not Path(loader.strip()).exists():
        yield f"its firmware {loader.strip()} is not on this node"
    if nvram and not Path(nvram.strip()).parent.is_dir():
        yield f"the folder of its firmware's variables, {nvram.strip()}, is not on this node"
