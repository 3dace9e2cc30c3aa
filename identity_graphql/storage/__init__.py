"""What is known, in a database: find it in one statement, change it in one transaction.

Two rules judge every write, the same on every database:

1. absence is decided by a unique index: a new identifier is a plain INSERT;
2. presence is decided by compare-and-swap: every touched cluster must still have the version that was read.

Whoever loses rolls back and looks again (`Conflict`).
"""

from identity_graphql.storage.storage import Storage

__all__ = ["Storage"]
