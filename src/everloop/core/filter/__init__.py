"""The filter grammar: lexer, parser, tree, printer, and the vocabularies that mean something."""
