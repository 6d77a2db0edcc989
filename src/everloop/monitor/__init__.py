"""Watching what is served: sealed predictions, late labels, windows, drift, loss and alerts."""
