"""The deciding half of the network service: pure functions, no clock, no random, no I/O."""
