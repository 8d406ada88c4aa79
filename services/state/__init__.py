"""The one state of the cluster: typed rows, read from a mirror in memory, written in transactions."""
