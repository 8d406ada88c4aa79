"""`pvc version`: of this client, of the cluster, of each of its nodes."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import click

from shell import columns
from shell.render import Column, Output, json_text, table, yaml_text
from shell.tree import Command

NODE = (
    Column("NODE", lambda r, v: columns.last(r.name)),
    Column("STATE", lambda r, v: columns.enum_word(r.decision, "state") or "new",
           style=columns.state_style),
    Column("PVC", lambda r, v: r.status.version),
    Column("QEMU", lambda r, v: r.status.emulator_version),
    Column("LIBVIRT", lambda r, v: r.status.libvirt_version),
    Column("KERNEL", lambda r, v: r.status.kernel, elastic=True),
)  # fmt: skip


@click.command(cls=Command, examples=("pvc version", "pvc version --client", "pvc version -f json"))
@click.option("--client", "client_only", is_flag=True, help="Of this client alone; asks nobody.")
@click.option("-f", "--format", type=click.Choice(["table", "json", "yaml"]), default="table",
              show_default=True, help="How to show it.")  # fmt: skip
@click.pass_obj
def version(session: Any, /, client_only: bool, format: str) -> None:
    """Show the version of this client, of the cluster, and of each node's software."""
    own = metadata.version("pvc")
    if format == "table":
        click.echo(f"Client:  {own}")
    if client_only:
        if format != "table":
            _dump({"client": own}, format)
        return
    asked, nodes = session.cluster.whoami(), list(session.cluster.nodes.list())
    if format != "table":
        _dump(_plain(own, asked, nodes), format)
        return
    click.echo(f"Cluster: {asked.version} ({asked.cluster})\n")
    click.echo(table(nodes, NODE, session.view(Output())), nl=False)
    if len({node.status.version for node in nodes if node.status.version}) > 1:
        session.note("the nodes differ: an upgrade goes on, or was left half done")


def _plain(own: str, asked: Any, nodes: list[Any]) -> dict[str, Any]:
    return {
        "client": own,
        "cluster": asked.version,
        "nodes": {
            columns.last(node.name): {
                "pvc": node.status.version,
                "qemu": node.status.emulator_version,
                "libvirt": node.status.libvirt_version,
                "kernel": node.status.kernel,
            }
            for node in nodes
        },
    }


def _dump(plain: dict[str, Any], format: str) -> None:
    if format == "json":
        click.echo(json_text(plain, 2))
    else:
        click.echo(yaml_text(plain), nl=False)
