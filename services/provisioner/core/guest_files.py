"""What is written into an image after its packages: boot menu, network, console, cloud-init.

A recipe in, files and links out; nothing is written here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.provisioner.core.apt_sources import AptSource, guest_line
from services.provisioner.core.recipe import ImageFile, Recipe

SYSTEM = "/etc/systemd/system"
UNITS = "/lib/systemd/system"

# Left by the packages' installation; different or unwanted in every machine made of the image.
REMOVED = (
    "etc/ssh/ssh_host_*",
    "var/lib/apt/lists/*_*",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/*.bin",
    "var/log/*.log",
    "var/log/apt/*",
    "var/lib/systemd/random-seed",
    "var/lib/dbus/machine-id",
)


@dataclass(frozen=True, slots=True)
class ImageLink:
    """A symbolic link of the image."""

    path: str
    target: str


def image_files(recipe: Recipe, sources: Sequence[AptSource]) -> tuple[ImageFile, ...]:
    """The built-in files in order, then the recipe's own, which may replace them."""
    return (
        ImageFile("/etc/hostname", "debian\n"),
        ImageFile("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
        # Empty, so that every machine draws its own at its first boot.
        ImageFile("/etc/machine-id", "", 0o444),
        ImageFile("/etc/fstab", f"LABEL={recipe.root_label} / ext4 defaults,noatime 0 1\n"),
        ImageFile("/etc/apt/sources.list", "".join(guest_line(s) + "\n" for s in sources)),
        ImageFile("/boot/grub/grub.cfg", grub_config(recipe)),
        *_initramfs_files(recipe),
        *_network_files(),
        *_cloud_init_files(recipe),
        *recipe.files,
        # Newer than /usr: tells systemd that there is nothing to bring up to date at first boot.
        ImageFile("/etc/.updated", ""),
        ImageFile("/var/.updated", ""),
    )


def image_links(recipe: Recipe) -> tuple[ImageLink, ...]:
    """Units switched on (serial console, network) and units masked."""
    masked = [*recipe.masked_units]
    if not recipe.cloud_init.config:
        # Nothing is left for this stage, and every stage costs the start of an interpreter.
        masked.append("cloud-config.service")
    return (
        _wanted("getty.target", "serial-getty@ttyS0.service", "serial-getty@.service"),
        _wanted("multi-user.target", "systemd-networkd.service"),
        _wanted("sockets.target", "systemd-networkd.socket"),
        _wanted("network-online.target", "systemd-networkd-wait-online.service"),
        ImageLink(
            f"{SYSTEM}/dbus-org.freedesktop.network1.service", f"{UNITS}/systemd-networkd.service"
        ),
        *(ImageLink(f"{SYSTEM}/{unit}", "/dev/null") for unit in masked),
        *(ImageLink(f"{SYSTEM}-generators/{g}", "/dev/null") for g in recipe.masked_generators),
    )


def _wanted(target: str, unit: str, template: str = "") -> ImageLink:
    return ImageLink(f"{SYSTEM}/{target}.wants/{unit}", f"{UNITS}/{template or unit}")


def grub_config(recipe: Recipe) -> str:
    """A boot menu that starts at once; /vmlinuz is kept by Debian's kernel packages.

    Both consoles get the kernel's messages; the last one named is the guest's /dev/console.
    """
    consoles = ("console=tty0", "console=ttyS0,115200")
    root = (f"root=LABEL={recipe.root_label}", "ro")
    arguments = " ".join((*root, *consoles, *recipe.kernel_arguments))

    def entry(title: str, suffix: str) -> str:
        return (
            f'menuentry "{title}" {{\n'
            f"  linux /vmlinuz{suffix} {arguments}\n"
            f"  initrd /initrd.img{suffix}\n"
            f"}}\n"
        )

    return (
        "serial --unit=0 --speed=115200\n"
        "terminal_input serial console\n"
        "terminal_output serial console\n"
        "set default=0\n"
        "set timeout=0\n" + entry("Debian", "") + entry("Debian, previous kernel", ".old")
    )


def _initramfs_files(recipe: Recipe) -> tuple[ImageFile, ...]:
    """Only the modules that find the root: a third of the size to load, unpack and search."""
    if not recipe.initramfs_modules:
        return ()
    return (
        ImageFile("/etc/initramfs-tools/conf.d/pvc", "MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n"),
        ImageFile(
            "/usr/share/initramfs-tools/modules.d/pvc",
            "".join(f"{module}\n" for module in recipe.initramfs_modules),
        ),
    )


def _network_files() -> tuple[ImageFile, ...]:
    """DHCP on every interface that cloud-init has not configured, such as a hot-plugged one.

    Cloud-init writes its own files with a lower number for the interfaces it was told about.
    """
    fallback = (
        "[Match]\nType=ether\n\n"
        "[Link]\nRequiredForOnline=no\n\n"
        "[Network]\nDHCP=yes\n\n"
        "[DHCPv4]\nClientIdentifier=mac\n"
    )
    # A network without a DHCP server must not hold the boot for the two minutes of the default, and
    # a machine without an interface not at all.
    patience = (
        "[Unit]\nConditionPathExistsGlob=/sys/class/net/e*\n\n"
        "[Service]\nExecStart=\n"
        "ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=15\n"
    )
    return (
        ImageFile("/etc/systemd/network/90-pvc.network", fallback),
        ImageFile(f"{SYSTEM}/systemd-networkd-wait-online.service.d/pvc.conf", patience),
    )


def _cloud_init_files(recipe: Recipe) -> tuple[ImageFile, ...]:
    """Only the seed that PVC attaches is looked for. JSON is YAML, and needs no quoting rules."""
    settings = {
        "datasource_list": ["NoCloud", "None"],
        "ssh_genkeytypes": ["ed25519"],
        "ssh_quiet_keygen": True,
        "cloud_init_modules": list(recipe.cloud_init.init),
        "cloud_config_modules": list(recipe.cloud_init.config),
        "cloud_final_modules": list(recipe.cloud_init.final),
        "system_info": {"network": {"renderers": ["networkd"], "activators": ["networkd"]}},
    }
    text = "# Written by PVC's image recipe.\n" + json.dumps(settings, indent=2) + "\n"
    return (
        ImageFile("/etc/cloud/cloud.cfg.d/90_pvc.cfg", text),
        ImageFile(
            "/etc/systemd/system-generators/cloud-init-generator", CLOUD_INIT_GENERATOR, 0o755
        ),
    )


# In place of cloud-init's own: the same switches to disable it, without the search for a platform.
CLOUD_INIT_GENERATOR = """\
#!/bin/sh
read -r line < /proc/cmdline
case " $line " in *" cloud-init=disabled "*) exit 0 ;; esac
[ ! -e /etc/cloud/cloud-init.disabled ] || exit 0
mkdir -p /run/cloud-init "$2/multi-user.target.wants"
: > /run/cloud-init/enabled
ln -sf /lib/systemd/system/cloud-init.target "$2/multi-user.target.wants/cloud-init.target"
"""
