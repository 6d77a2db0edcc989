"""The kernel: verbs, permission, ledger, lineage, signing and safe loading.

It knows ports, never a database, a web library or a machine-learning framework.
"""
