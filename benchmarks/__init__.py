"""How fast it is: `make bench`. See `python -m benchmarks --help`."""
