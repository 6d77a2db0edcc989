"""The optional libraries that checks call, each imported only when it is used."""
