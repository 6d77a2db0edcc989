"""What runs on the device: copied into every edge bundle, so it imports nothing of ours.

Python 3.9 and its standard library suffice; numpy, cryptography and onnxruntime are used where
they are installed. Inside a bundle this package is called ``everloop_edge``::

    import sys
    sys.path.insert(0, "credit.pyz")
    import everloop_edge
    everloop_edge.predict({"income": 3200.0, "age": 41})
"""

from __future__ import annotations

from typing import Any

_opened: list[Any] = []


def predict(row: dict[str, Any]) -> Any:
    """Return the answer to one row: a number, or a list of numbers for several classes.

    The bundle is verified when it is first asked. Nothing is logged here; ``Engine`` logs.

    Raises:
        EdgeError: the bundle does not verify, or the row does not fit its signature.
    """
    if not _opened:
        from everloop.edge.device.bundle import open_bundle, own_archive

        _opened.append(open_bundle(own_archive()))
    return _opened[0].predict([row])[0]
