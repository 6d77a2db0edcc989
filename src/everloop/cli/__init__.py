"""The command line: parses, performs a verb, prints."""
