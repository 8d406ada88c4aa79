"""The acting half of the network service: thin verbs over the machine, which never decide."""
