"""The one mapper between events and the rows of the table `event`.

A request's event fills the columns of its identifiers, and has a document in `detail` where something was kept back
(``kept_back``, ``kept_from``) or a limit exceeded (``exceeded``). A steward's verb has one with ``asked`` (the verb),
``changes``, ``about`` and, of an undo that made contacts, ``born`` (pairs of event and contact). Nobody else knows the
columns and the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.events import Demotion, Event, EventKind, IdentifyEvent, Outcome, VerbEvent
from identity_graphql.domain.identifiers import Identifier, identifiers
from identity_graphql.domain.joining import KeptBack
from identity_graphql.domain.simulation import LoggedRequest
from identity_graphql.domain.verbs import Verb
from identity_graphql.storage.statements import others_of, others_row
from identity_graphql.storage.tables import as_text, event

DONE = "DONE"
"""What stands in the column `outcome` where a steward's verb was carried out."""

MALFORMED = (KeyError, TypeError, ValueError, msgspec.MsgspecError)
"""What is raised for a row that is no event."""


class _Judged(Struct, frozen=True, omit_defaults=True):
    """The document of a request that was not simply linked."""

    kept_back: tuple[KeptBack, ...] = ()
    kept_from: tuple[int, ...] = ()
    exceeded: tuple[str, ...] = ()


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
            "detail": _judged(entry),
            "others": others_row(entry.others),
            "source": entry.source,
            "occurred_at": entry.occurred_at,
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
        "others": None,
        "source": None,
        "occurred_at": None,
    }


def event_of(row: Sequence[Any]) -> Event:
    """Returns the event of a whole row, its values in the order of the columns. Raises one of `MALFORMED`."""
    (seq, at, kind, outcome, email, phone_number, raw, norm, contact_id, primary_id, demoted, before, after) = row[:13]
    actor, reason, request_id, detail, others, source, occurred_at = row[13:]
    if kind != EventKind.IDENTIFY.value:
        document = msgspec.convert(detail, _Detail)
        return _verb_event(kind, document, seq, at, primary_id, before, after, actor, reason, norm, request_id)
    demotions = tuple(Demotion(**demotion) for demotion in demoted) if demoted else ()
    judged = _NOTHING if detail is None else msgspec.convert(detail, _Judged)
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
        msgspec.convert(others, tuple[Identifier, ...]) if others else (),
        judged.kept_back,
        judged.kept_from,
        judged.exceeded,
        source,
        occurred_at,
    )


DEMOTED = as_text(event.c.demoted)
OTHERS = as_text(event.c.others)
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
    as_text(event.c.detail),
    OTHERS,
    event.c.occurred_at,
)
"""What the tables follow from: all but what was typed, who asked, and why."""


def scanned_event_of(row: Sequence[Any]) -> Event:
    """Returns the event of the columns `SCANNED`, as far as the tables follow from it. Raises one of `MALFORMED`."""
    seq, at, kind, outcome, email, phone_number, contact_id, primary_id, demoted, before, after, detail = row[:12]
    others, occurred_at = row[12:]
    if kind != EventKind.IDENTIFY.value:
        return _verb_event(kind, _DETAIL.decode(detail), seq, at, primary_id, before, after)
    judged = _NOTHING if detail is None else _JUDGED.decode(detail)
    return IdentifyEvent(
        at,
        _OUTCOMES[outcome],
        email,
        phone_number,
        {},
        "",
        contact_id,
        primary_id,
        demotions_of(demoted),
        before,
        after,
        None,
        seq,
        others_of(others),
        judged.kept_back,
        judged.kept_from,
        judged.exceeded,
        None,
        occurred_at,
    )


SAID = (
    event.c.seq,
    event.c.at,
    event.c.kind,
    event.c.email,
    event.c.phone_number,
    as_text(event.c.raw),
    event.c.contact_id,
    event.c.primary_id,
    as_text(event.c.detail),
    OTHERS,
    event.c.occurred_at,
)
"""What a request said, and what was kept back of it."""


def logged_request_of(row: Sequence[Any]) -> LoggedRequest | None:
    """Returns the request of the columns `SAID`; None for a steward's verb. Raises one of `MALFORMED`."""
    seq, at, kind, email, phone_number, raw, contact_id, primary_id, detail, others, occurred_at = row
    if kind != EventKind.IDENTIFY.value:
        return None
    judged = _NOTHING if detail is None else _JUDGED.decode(detail)
    return LoggedRequest(
        seq,
        primary_id if contact_id is None else contact_id,
        at if occurred_at is None else min(occurred_at, at),
        identifiers(email, phone_number, others_of(others)),
        _RAW.decode(raw),
        judged.kept_back,
        judged.exceeded,
    )


def demotions_of(text: str) -> tuple[Demotion, ...]:
    """Returns what the column `DEMOTED` says. Raises one of `MALFORMED`."""
    return () if text == "[]" else _DEMOTED.decode(text)


def kept_back_of(text: str | None) -> tuple[tuple[KeptBack, ...], tuple[int, ...]]:
    """Returns what a request's column `detail`, as text, says was kept back, and from which clusters.

    Raises one of `MALFORMED`.
    """
    judged = _NOTHING if text is None else _JUDGED.decode(text)
    return judged.kept_back, judged.kept_from


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_DEMOTED = msgspec.json.Decoder(tuple[Demotion, ...])
_DETAIL = msgspec.json.Decoder(_Detail)
_JUDGED = msgspec.json.Decoder(_Judged)
_RAW = msgspec.json.Decoder(dict[str, Any])
_NOTHING = _Judged()


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


def _judged(entry: IdentifyEvent) -> dict[str, Any] | None:
    if not (entry.kept_back or entry.exceeded):
        return None
    document: dict[str, Any] = msgspec.to_builtins(_Judged(entry.kept_back, entry.kept_from, entry.exceeded))
    return document


def _document(entry: VerbEvent) -> dict[str, Any]:
    born = {"born": sorted(map(list, entry.created_for.items()))} if entry.created_for else {}
    return {
        "asked": msgspec.to_builtins(entry.verb),
        "changes": msgspec.to_builtins(entry.changes),
        "about": list(entry.about),
        **born,
    }
