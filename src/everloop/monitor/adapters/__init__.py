"""The optional libraries that monitoring calls, each imported only when it is used."""
