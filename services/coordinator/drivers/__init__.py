"""How the coordinator reaches what can end a node: controllers of power, and storage."""
