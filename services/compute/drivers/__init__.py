"""Thin hands on the hypervisor. They decide nothing and know no state."""
