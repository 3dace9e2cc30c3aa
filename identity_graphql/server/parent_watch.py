"""A worker does not outlive the process that started it, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess

from identity_graphql.observability import log


def stop_with_parent() -> None:
    """Stop this process as by SIGTERM when its parent is gone. Does nothing in a process that has none to serve."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    parent.join()  # it reads a pipe whose other end only the parent holds: `kill -9` closes it too
    log.warning("server.parent_gone", parent=parent.pid)
    os.kill(os.getpid(), signal.SIGTERM)
