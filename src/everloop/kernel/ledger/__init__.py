"""The tamper-evident log of every change (RFC 6962 Merkle tree, signed checkpoints)."""
