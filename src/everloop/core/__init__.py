"""Pure foundations: ids, digests, canonical form, errors, records and ports.

Nothing here performs IO or knows a library outside the standard library, msgspec and blake3.
"""
