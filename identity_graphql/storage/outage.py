"""Outages in the log: a line when the database cannot be used, and one when it can again."""

from __future__ import annotations

import time
from collections.abc import Callable

from identity_graphql.errors import DatabaseAway, DatabaseUnavailable
from identity_graphql.observability import log

SILENT = "silent"
ENDED_BY_ANY_ANSWER = frozenset({DatabaseAway.state, SILENT})


class Outage:
    """Tells of each state of an outage once, however many requests meet it, until the outage is over.

    It is over as soon as the database answers; where it was there and did not do what it was asked, as soon as
    something has been written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered = clock()
        self._began = 0.0
        self._states: set[str] = set()

    @property
    def until_written(self) -> bool:
        """Whether there is one that only something written ends."""
        return not self._states <= ENDED_BY_ANY_ANSWER

    def failed(self, error: DatabaseUnavailable) -> None:
        """A request was refused because of this."""
        self._tell(error.state, error.cause)

    def waited(self, since: float, cause: str) -> None:
        """A request was given up that had begun at this time of the clock. Nothing is told if others were answered
        meanwhile: then it is that request that takes long."""
        if self._answered < since:
            self._tell(SILENT, cause)

    def answered(self, *, wrote: bool = False) -> None:
        """The database answered; ``wrote``: something was written."""
        self._answered = self._clock()
        if self._states and (wrote or not self.until_written):
            self._states.clear()
            log.info("database.back", seconds=round(self._answered - self._began, 1))

    def _tell(self, state: str, cause: str) -> None:
        if state in self._states:
            return
        if not self._states:
            self._began = self._clock()
        self._states.add(state)
        log.warning("database.unavailable", state=state, cause=cause)
