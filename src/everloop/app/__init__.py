"""The composition root: settings, wiring, process roles and the Python SDK.

The only package that knows every other one and that imports concrete storage.
"""
