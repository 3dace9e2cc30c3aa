"""How many connections a process can hold: each is an open file, and the system bounds those.

They must not run out. The event loop resets whoever comes then, without a word, and may stop listening altogether.
"""

from __future__ import annotations

import sys

from identity_graphql.observability import log

OWN = 64
"""Files that a process has open beside connections, generously: code, logs, pipes, what the event loop needs."""
PER_DATABASE_CONNECTION = 3
"""A socket; on SQLite the database, its log, and the index of that."""


def connections_that_fit(wanted: int, *, spare: int, database_connections: int) -> int:
    """Returns how many of ``wanted`` connections this process can hold, and ``spare`` ones beside them.

    Raises its limit of open files as far as that takes and the system allows; processes that it starts inherit it.
    """
    others = spare + OWN + PER_DATABASE_CONNECTION * database_connections
    allowed = _allow(wanted + others)
    fitting = max(1, min(wanted, allowed - others))
    if fitting < wanted:
        log.warning(
            "server.few_open_files",
            hint="Raise the limit of open files (`ulimit -n`, LimitNOFILE=), or lower MAX_CONNECTIONS.",
            open_files=allowed,
            max_connections=wanted,
            connections=fitting,
        )
    return fitting


def _allow(files: int) -> int:
    """Returns how many open files this process may have, of as many as these; raises the limit if it can."""
    if sys.platform == "win32":
        return files
    import resource  # there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return files
    most = files if hard == resource.RLIM_INFINITY else min(files, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ValueError, OSError):  # macOS has a limit beside this one
        return soft
    return most
