"""Everything that is raised on purpose.

    IdentityError                 expected: its code and text are shown to the caller
    ├── InvalidInput              BAD_USER_INPUT   what the caller sent cannot be accepted
    ├── NotFound                  NOT_FOUND        no such contact, event or identifier
    ├── Gone                      GONE             the contact was deleted; its id is never given out again
    ├── Refused                   REFUSED          the present state does not allow it: a ban, other evidence
    │   └── Outdated              CONFLICT         a cluster has another version than expected: look again
    ├── Busy                      BUSY             try again: too much contention, or
    │   └── DatabaseUnavailable   BUSY             the database cannot be used
    │       ├── DatabaseAway                       it cannot be reached
    │       ├── DatabaseUnwritable                 it can be read, and not written to
    │       ├── DatabaseRefuses                    it is there, and refuses
    │       └── DatabaseNotMigrated                it lacks the tables
    ├── TooComplex                QUERY_TOO_COMPLEX  the answer would take more than one request may have
    └── Unexpected                INTERNAL         a fault of the program; the log has it under the request id

    Conflict                      inside: another writer was faster; look again
    ConfigurationError            at start: a setting that cannot work; says what to do

Texts never hold an email, a phone number or a password.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the input, and where: the name of an argument, or "root".

    In snake case, in the message too; the edges show the names that their callers know.
    """

    path: str
    message: str


class IdentityError(Exception):
    """An expected error: safe to show, with a stable code for programs."""

    code: ClassVar[str]

    @property
    def message(self) -> str:
        return str(self)


class InvalidInput(IdentityError):
    """The input cannot be accepted; nothing was changed."""

    code = "BAD_USER_INPUT"

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class NotFound(IdentityError):
    """No such contact, event or identifier is there, or ever was."""

    code = "NOT_FOUND"


class Gone(IdentityError):
    """The contact was deleted, undone or erased (``how``); ``at`` says when."""

    code = "GONE"

    def __init__(self, contact_id: int, at: datetime, how: str = "deleted") -> None:
        super().__init__(f"Contact {contact_id} was {how} at {at.isoformat()}.")
        self.at = at
        self.how = how


class Refused(IdentityError):
    """What was asked is understood, but the present state does not allow it. Nothing was changed.

    It is refused again until something else is done first; the text says what.
    """

    code = "REFUSED"


class Outdated(Refused):
    """A cluster has another version than the one expected. Nothing was changed; after another look it may succeed."""

    code = "CONFLICT"


class Busy(IdentityError):
    """The request could not be settled in time. Nothing is half-written; repeating it is safe.

    ``cause`` is for the log alone.
    """

    code = "BUSY"
    sentence: ClassVar[str] = "The service is busy; try again."

    def __init__(self, cause: str) -> None:
        super().__init__(f"{self.sentence} Repeating the request is safe.")
        self.cause = cause


class DatabaseUnavailable(Busy):
    """The database cannot be used at the moment; ``cause`` is the code of its driver."""

    state: ClassVar[str]
    """what to call it in the log"""
    once_more: ClassVar[bool] = False
    """whether a new connection may help at once"""


class DatabaseAway(DatabaseUnavailable):
    """The database cannot be reached."""

    state, once_more = "away", True
    sentence = "The database cannot be reached; try again."


class DatabaseUnwritable(DatabaseUnavailable):
    """The database can be read, and not written to: it is read-only, or its disk is full."""

    state, once_more = "unwritable", True
    sentence = "The database cannot be written to: it is read-only, or its disk is full; try again later."


class DatabaseRefuses(DatabaseUnavailable):
    """The database is there and refuses: a password, a permission, memory or connections are wanting."""

    state = "refuses"
    sentence = "The database refuses to work for this service; try again later."


class DatabaseNotMigrated(DatabaseUnavailable):
    """The database lacks tables or columns of this program's revision."""

    state = "not migrated"
    sentence = "The database is not migrated: run `identity-graphql migrate`."


class TooComplex(IdentityError):
    """The answer would take more work than one request may have. If it was to change something, that is done."""

    code = "QUERY_TOO_COMPLEX"


class Unexpected(IdentityError):
    """A fault of the program, masked. The log holds what happened under the same request id."""

    code = "INTERNAL"

    def __init__(self, request_id: str | None) -> None:
        super().__init__(f"Something went wrong on our side; the log has it as request {request_id}.")
        self.request_id = request_id


class Conflict(Exception):
    """Another writer was faster, the database asked for a retry, or no connection was free. Nothing was done; look
    again."""


class ConfigurationError(Exception):
    """A setting that cannot work. The text says what was expected and what to do."""
