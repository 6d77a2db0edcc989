"""Takes a model out of here: an image, manifests, units and files that serve it anywhere.

What is written is text made from a sealed bundle and a few settings, the same bytes for the same
input. Nothing here builds, pushes or applies anything, and no platform's library is imported.
"""
