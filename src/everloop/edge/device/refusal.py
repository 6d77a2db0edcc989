"""The one error of the device: a stable code, what was wrong, and what to do next."""

from __future__ import annotations


class EdgeError(Exception):
    """Something that the device refuses.

    Attributes:
        code: Stable name, such as ``edge.signature``.
        hint: What to do next.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.args[0]} [{self.code}] {self.hint}"
