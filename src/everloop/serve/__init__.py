"""The serving process: a sealed bundle in, answers over HTTP, a prediction log out.

It knows no database, no control plane and no training framework. What it may answer with comes
from ``routes.json``; what it answered goes into the log before the caller has it.
"""
