"""PVC whole: the real pvcd with real libvirt, QEMU, dnsmasq and nftables, used as a user would."""
