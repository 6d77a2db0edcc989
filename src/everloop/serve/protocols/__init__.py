"""The languages that the server speaks, one module each, all over the same core."""
