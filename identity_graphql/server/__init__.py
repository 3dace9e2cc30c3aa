"""The server: worker processes on one port, and the bounds on what a client may take of one."""

from identity_graphql.server.processes import exit_when_told, serve

__all__ = ["exit_when_told", "serve"]
