"""Long work of the provisioner: what a worker does for an accepted operation."""
