"""Model formats: one module for each library, imported only when it is needed."""
