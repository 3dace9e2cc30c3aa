"""Pure: what is the same identifier, what is a cluster, what a request changes."""
