"""Decides for the whole cluster. No I/O, no clock, no chance: the same world gives the same plan."""
