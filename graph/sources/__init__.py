"""Files that networks come in: one module for each kind."""
