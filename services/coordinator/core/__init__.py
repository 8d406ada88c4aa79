"""Decides for the whole cluster, without I/O or a clock: the same world gives the same plan."""
