"""Lineage reports, cards and audit, out of the evidence."""
