"""The HTTP API: routes made from the verbs, and nothing else."""
