"""Releases: moving a deployment's traffic to a version, guarded at every step."""
