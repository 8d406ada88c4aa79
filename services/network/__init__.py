"""The network service: the networks that virtual machines are attached to."""
