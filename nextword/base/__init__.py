"""What every room may use: the tree of errors and how an option is declared."""
