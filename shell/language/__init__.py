"""The language of a line of `pvc-shell`: what it says, in which context, and running it."""
