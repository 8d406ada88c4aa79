"""The seed of a VM: the user's cloud-init texts checked, completed and put on a CD-ROM image."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.provisioner.core import seed
from services.provisioner.core.problem import FieldProblem
from services.provisioner.drivers.seed_iso import InvalidYaml, parse_yaml, render_yaml, seed_iso


@dataclass(frozen=True, slots=True)
class SeedTexts:
    """What the user gave; each may be empty."""

    user_data: str = ""
    meta_data: str = ""
    network_data: str = ""


def make_seed(
    texts: SeedTexts, instance_id: str, host_name: str, macs: Sequence[str] = ()
) -> bytes:
    """The CD-ROM image with the VM's cloud-init data; raises FieldProblem for a bad text.

    `macs` are the addresses of the VM's interfaces, for when the user gives no network data.

    The instance id tells cloud-init whether this is a new machine: another one, another first boot.
    """
    user_data = texts.user_data or f"{seed.CLOUD_CONFIG}\n{{}}\n"
    if seed.check_user_data(user_data, "cloud_init.user_data"):
        _mapping(user_data, "cloud_init.user_data", seed.USER_DATA_BYTES_MAX)
    given = _mapping(texts.meta_data, "cloud_init.meta_data", seed.OTHER_BYTES_MAX)
    given_network = _mapping(texts.network_data, "cloud_init.network_data", seed.OTHER_BYTES_MAX)
    network = seed.network_data(given_network, macs)
    files = {
        "user-data": user_data.encode(),
        "meta-data": render_yaml(seed.meta_data(given or {}, instance_id, host_name)),
    }
    if network is not None:
        files["network-config"] = render_yaml(network)
    return seed_iso(files)


def _mapping(text: str, field: str, bytes_max: int) -> dict[str, object] | None:
    seed.check_text(text, field, bytes_max)
    if not text.strip():
        return None
    try:
        value = parse_yaml(text)
    except InvalidYaml as error:
        raise FieldProblem(field, f"is not valid YAML: {error}") from error
    # A text of comments alone is nothing; an empty #cloud-config is fine.
    return None if value is None else dict(seed.check_mapping(value, field))
