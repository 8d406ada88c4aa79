"""What keeps volumes. A driver does what it is told and decides nothing."""
