"""The GraphQL edge: translates, nothing else."""
