"""What tracking knows of other libraries: frameworks that log by themselves, and graphics cards.

Nothing here is imported before it is asked for, and no library is loaded that the user's program
did not load.
"""
