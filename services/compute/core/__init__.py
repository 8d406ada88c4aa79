"""Decides what to do about a VM on this node. No I/O, no clock, no chance."""
