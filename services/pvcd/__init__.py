"""Everything in one process, for a single machine: puts the services together, and begins a
cluster."""
