"""What runs inside a node of the lab as its first process, in place of systemd. Only the standard
library: it starts in milliseconds."""
