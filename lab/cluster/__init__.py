"""A real cluster of three nodes on one machine, each in Linux namespaces of its own. It uses the
released commands, and never touches the machine's own network, services or PVC."""
