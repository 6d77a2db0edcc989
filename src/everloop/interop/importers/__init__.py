"""Brings in what other systems recorded: runs with their history, files and models."""
