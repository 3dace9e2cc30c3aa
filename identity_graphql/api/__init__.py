"""The edges: what comes in over HTTP is translated to calls of services, and their answers back. Nothing else."""
