"""Datasets: immutable versions, their schemas, profiles and contracts."""
