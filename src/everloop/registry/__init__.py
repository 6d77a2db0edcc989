"""Models: immutable versions, signatures, semantic versions, aliases and gate evidence.

Empty of imports on purpose: the serving process takes the native predictor from here and must not
load Arrow or the kernel with it.
"""
