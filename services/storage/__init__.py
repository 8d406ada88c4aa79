"""Pools, volumes and snapshots: what users ask of them, and the agent of the node with them."""
