"""The one state of the cluster: typed rows, read from memory, written in transactions."""
