"""Runs virtual machines on this node: the service, its pure core, and the drivers below."""
