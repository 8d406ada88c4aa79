"""The coordinator: one of each node, one of them leads; it decides, the nodes act."""
