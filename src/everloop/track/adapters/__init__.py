"""Frameworks that log by themselves, each with an adapter.

Nothing here is imported before it is asked for, and no library is loaded that the user's program
did not load.
"""
