"""The demo: PVC on this one machine, with a real VM that answers. Uses only what a user has."""
