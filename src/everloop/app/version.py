"""The version of this package, where every face finds it."""

from __future__ import annotations

__version__ = "0.1.0"
