"""What the provisioner decides: pure functions over values, without clock, random or I/O."""
