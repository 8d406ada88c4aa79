"""The pure part of storage: where things lie, what may be done, what an image is.

No I/O, no clock.
"""
