"""The long work of the storage service, one function for each method.

All of it may be cut anywhere and done again.
"""
