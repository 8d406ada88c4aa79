"""The commands of `pvc`, one module for each kind of thing. They load what they need when they
run."""
