"""The one mapper between events and the rows of the table `event`.

A request's event fills the columns of its identifiers; a steward's verb has a document in `detail`: ``asked`` (the
verb), ``changes``, ``about`` and, of an undo that made contacts, ``born`` (pairs of event and contact). Nobody else
knows the columns and the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import asdict

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.events import Demotion, Event, EventKind, IdentifyEvent, Outcome, VerbEvent
from identity_graphql.domain.verbs import Verb
from identity_graphql.storage.tables import event

DONE = "DONE"
"""What stands in the column `outcome` where a steward's verb was carried out."""

MALFORMED = (KeyError, TypeError, ValueError, msgspec.MsgspecError)
"""What is raised for a row that is no event."""


class _Detail(Struct, frozen=True):
    """The document of a steward's verb."""

    asked: Verb
    changes: Changes
    about: tuple[int, ...] = ()
    born: tuple[tuple[int, int], ...] = ()


def row_of(entry: Event) -> dict[str, Any]:
    """Returns the row of an event, but for its number: the value of every other column."""
    common = {
        "at": entry.at,
        "kind": entry.kind.value,
        "norm": entry.norm,
        "primary_id": entry.primary_id,
        "version_before": entry.version_before,
        "version_after": entry.version_after,
        "request_id": entry.request_id,
    }
    if isinstance(entry, IdentifyEvent):
        return {
            **common,
            "outcome": entry.outcome.value,
            "email": entry.email,
            "phone_number": entry.phone_number,
            "raw": dict(entry.raw),
            "contact_id": entry.contact_id,
            "demoted": [asdict(demotion) for demotion in entry.demoted],
            "actor": None,
            "reason": None,
            "detail": None,
        }
    return {
        **common,
        "outcome": DONE,
        "email": None,
        "phone_number": None,
        "raw": {},
        "contact_id": None,
        "demoted": [],
        "actor": entry.actor,
        "reason": entry.reason,
        "detail": _document(entry),
    }


def event_of(row: Sequence[Any]) -> Event:
    """Returns the event of a whole row, its values in the order of the columns. Raises one of `MALFORMED`."""
    (seq, at, kind, outcome, email, phone_number, raw, norm, contact_id, primary_id, demoted, before, after) = row[:13]
    actor, reason, request_id, detail = row[13:]
    if kind != EventKind.IDENTIFY.value:
        document = msgspec.convert(detail, _Detail)
        return _verb_event(kind, document, seq, at, primary_id, before, after, actor, reason, norm, request_id)
    demotions = tuple(Demotion(**demotion) for demotion in demoted) if demoted else ()
    return IdentifyEvent(
        at,
        _OUTCOMES[outcome],
        email,
        phone_number,
        raw,
        norm,
        contact_id,
        primary_id,
        demotions,
        before,
        after,
        request_id,
        seq,
    )


def _text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A JSON document as it is stored: whether it can be read is to be found out row by row."""
    return sa.cast(column, sa.Text)


DEMOTED = _text(event.c.demoted)
SCANNED = (
    event.c.seq,
    event.c.at,
    event.c.kind,
    event.c.outcome,
    event.c.email,
    event.c.phone_number,
    event.c.contact_id,
    event.c.primary_id,
    DEMOTED,
    event.c.version_before,
    event.c.version_after,
    _text(event.c.detail),
)
"""What the tables follow from: all but what was typed, who asked, and why."""


def scanned_event_of(row: Sequence[Any]) -> Event:
    """Returns the event of the columns `SCANNED`, as far as the tables follow from it. Raises one of `MALFORMED`."""
    seq, at, kind, outcome, email, phone_number, contact_id, primary_id, demoted, before, after, detail = row
    if kind != EventKind.IDENTIFY.value:
        return _verb_event(kind, _DETAIL.decode(detail), seq, at, primary_id, before, after)
    demotions = demotions_of(demoted)
    return IdentifyEvent(
        at, _OUTCOMES[outcome], email, phone_number, {}, "", contact_id, primary_id, demotions, before, after, None, seq
    )


def demotions_of(text: str) -> tuple[Demotion, ...]:
    """Returns what the column `DEMOTED` says. Raises one of `MALFORMED`."""
    return () if text == "[]" else _DEMOTED.decode(text)


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_DEMOTED = msgspec.json.Decoder(tuple[Demotion, ...])
_DETAIL = msgspec.json.Decoder(_Detail)


def _verb_event(
    kind: str,
    document: _Detail,
    seq: int,
    at: datetime,
    primary_id: int,
    before: int,
    after: int,
    actor: str = "",
    reason: str = "",
    norm: str = "",
    request_id: str | None = None,
) -> VerbEvent:
    if document.asked.name != kind:
        raise ValueError("another verb was asked than was done")
    verb, changes, about, born = document.asked, document.changes, document.about, dict(document.born)
    return VerbEvent(at, verb, changes, about, actor, reason, norm, primary_id, before, after, request_id, born, seq)


def _document(entry: VerbEvent) -> dict[str, Any]:
    born = {"born": sorted(map(list, entry.created_for.items()))} if entry.created_for else {}
    return {
        "asked": msgspec.to_builtins(entry.verb),
        "changes": msgspec.to_builtins(entry.changes),
        "about": list(entry.about),
        **born,
    }
