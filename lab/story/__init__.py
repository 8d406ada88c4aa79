"""What the lab's demo tells: a cluster that boots VMs, moves one while it counts, loses nodes and
comes back. Uses only what an administrator has, and the lab's power switches."""
