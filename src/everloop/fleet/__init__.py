"""Fleets: devices in groups that pull what they should run, and tell how it goes."""
