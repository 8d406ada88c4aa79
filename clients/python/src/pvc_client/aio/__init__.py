"""The client for asyncio. What is in here is the source; the modules of the same names one level up
are made from it by tools/sync_client.py, but for wire.py, which each has of its own."""
