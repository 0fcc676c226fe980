"""What every room may use: exceptions, declared options, atomic files, a cache."""
