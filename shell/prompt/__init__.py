"""Everything on the screen of pvc-shell: completion, help, colours, keys, the status line. It shows
and suggests; it runs nothing."""
