"""Whether the tables are what the log says: a component rebuilt, compared row by row, and what must hold of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.counts import CONTACTS, counts_in
from identity_graphql.domain.erasure import is_token
from identity_graphql.domain.events import Event, IdentifyEvent
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.replay import Gap, step
from identity_graphql.domain.state import Bond, Pair, State, Withheld

K = TypeVar("K")
V = TypeVar("V")

HASHES = 2**256
WORDS: Mapping[str, str] = {EMAIL: "an email", PHONE_NUMBER: "a phone number"}


class Difference(Struct, frozen=True, order=True):
    """One thing that is not as it must be. Rows go by the numbers of contacts and events, never by their values."""

    row: str
    problem: str

    def __str__(self) -> str:
        return f"{self.row}: {self.problem}"


class Rows(Struct, frozen=True):
    """The rows of one component, as the log leads to them, or as they are in the tables."""

    contacts: dict[int, Contact]
    """without their claims"""
    claims: dict[Identifier, int]
    pairs: dict[Pair, int]
    withheld: dict[Pair, Withheld]
    bans: dict[Bond, int]
    blocked: dict[Identifier, int]
    marks: set[tuple[int, int]]
    """contacts, and the steward's events that were about them"""
    former: set[tuple[Identifier, int]]
    """who claimed an identifier before somebody else did, or nobody"""
    counts: dict[tuple[int, str], int]
    """of large clusters, by their primaries, and kinds"""


class Rebuilt(Struct, frozen=True):
    """What the events of one component lead to. With a problem, only those before it: nothing can be told from it."""

    state: State
    rows: Rows
    problem: Difference | None = None


def rebuild(events: Iterable[tuple[int, Event | None]]) -> Rebuilt:
    """Play all events of one component, in order, each with its number; None for one that cannot be read."""
    state, marks, former = State(), set[tuple[int, int]](), set[tuple[Identifier, int]]()
    problem = None
    for seq, event in events:
        if event is None:
            problem = "cannot be read"
            break
        if isinstance(event, IdentifyEvent):
            marks.update((contact_id, seq) for contact_id in event.kept_from)
        else:
            marks.update((contact_id, seq) for contact_id in event.contact_ids)
            changed = (identifier for identifier, _ in event.changes.claims)
            # Of what is erased by now, nothing is kept but its token in the log.
            former.update((i, state.claims[i]) for i in changed if i in state.claims and not is_token(i.value))
        try:
            step(state, event)
        except Gap as gap:
            problem = str(gap).removeprefix(f"event {seq} ")
            break
        primary = state.contacts.get(event.primary_id)
        version = primary.version if primary is not None else 0
        if version != event.version_after:
            problem = f"leads contact {event.primary_id} to version {version}, and says {event.version_after}"
            break
    counts = {(primary, kind): n for primary in state.members for kind, n in counts_in(state, primary).items()}
    rows = Rows(
        state.contacts, state.claims, state.pairs, state.withheld, state.bans, state.blocked, marks, former, counts
    )
    if problem is None:
        return Rebuilt(state, rows)
    problem += "; what follows from it was not compared"
    return Rebuilt(state, rows, Difference(f"event {seq}", problem))


def differences(expected: Rows, found: Rows) -> Iterator[Difference]:
    """Yields what is in the tables and not as the log has it, or missing there, row by row."""
    for contact_id, log, table in _differing(expected.contacts, found.contacts):
        yield from _columns(f"contact {contact_id}", log, table)
    for identifier, claimant, holder in _differing(expected.claims, found.claims):
        row = claim_of(claimant or holder or 0, identifier.kind)
        if claimant is None or holder is None:
            yield missing(row) if holder is None else surplus(row)
        else:
            yield Difference(row, f"is contact {holder}'s in the table")
    for _, seq, other in _differing(expected.pairs, found.pairs):
        yield _numbered(f"pair of event {seq or other}", seq, other)
    for _, kept, there in _differing(expected.withheld, found.withheld):
        row = f"withheld pair of event {(kept or there or Withheld(0)).seq}"
        if kept and there and kept.seq == there.seq:
            if kept.banned != there.banned:
                what = f"is {'' if there.banned else 'not '}banned in the table, by the log the other way"
            else:
                what = f"is withheld by {_limit(there)} in the table, by {_limit(kept)} by the log"
            yield Difference(row, what)
        else:
            yield _numbered(row, kept.seq if kept else None, there.seq if there else None)
    for (a, b), seq, other in _differing(expected.bans, found.bans):
        yield _numbered(f"ban of contacts {a} and {b}", seq, other)
    for (primary_id, kind), count, other in _differing(expected.counts, found.counts):
        row = count_of(primary_id, kind)
        if count is None or other is None:
            yield missing(row) if other is None else surplus(row)
        else:
            yield Difference(row, f"is {other} in the table, {count} by the log")
    for identifier, seq, other in _differing(expected.blocked, found.blocked):
        yield _numbered(block_of(seq or other or 0, identifier.kind), seq, other)
    for mark in sorted(expected.marks ^ found.marks):
        row = f"mark of event {mark[1]} on contact {mark[0]}"
        yield missing(row) if mark in expected.marks else surplus(row)
    for claim in sorted(expected.former ^ found.former):
        row = f"former {claim_of(claim[1], claim[0].kind)}"
        yield missing(row) if claim in expected.former else surplus(row)


def _limit(withheld: Withheld) -> str:
    return "a ban" if withheld.limit_kind is None else "a limit"


def missing(row: str) -> Difference:
    """Returns the difference of a row that the log has and the table does not."""
    return Difference(row, "is missing from the table")


def surplus(row: str) -> Difference:
    """Returns the difference of a row that the table has and the log does not."""
    return Difference(row, "is not in the log")


def count_of(primary_id: int, kind: str) -> str:
    """Returns how a count is called."""
    return f"count of {'contacts' if kind == CONTACTS else 'values of a kind'} in cluster {primary_id}"


def claim_of(contact_id: int, kind: str) -> str:
    """Returns how a claim is called."""
    return f"claim of contact {contact_id} on {WORDS.get(kind, 'an identifier')}"


def block_of(seq: int, kind: str) -> str:
    """Returns how a block is called."""
    return f"block of event {seq} on {WORDS.get(kind, 'an identifier')}"


def broken(state: State) -> Iterator[Difference]:
    """Yields which of the invariants I1 to I7 do not hold, whatever the tables are like."""
    for primary_id, members in state.members.items():
        if primary_id not in members:
            yield Difference(f"cluster {primary_id}", "its primary is deleted, or a secondary itself")
        elif len(members) > 1 and (oldest := state.oldest(members)) != primary_id:
            yield Difference(f"cluster {primary_id}", f"contact {oldest} is older than its primary")
    for identifier, contact_id in state.claims.items():
        if not state.is_live(contact_id) or identifier not in state.contacts[contact_id].carried:
            row = claim_of(contact_id, identifier.kind)
            yield Difference(row, "is of a contact that is deleted, or does not carry it")
    yield from _disconnected(state)
    for a, b in state.bans:
        if state.is_live(a) and state.is_live(b) and state.primary_of(a) == state.primary_of(b):
            yield Difference(f"cluster {state.primary_of(a)}", f"its contacts {a} and {b} are banned from each other")


def digest(state: State) -> int:
    """A hash of the state: the sum of the hashes of its rows, modulo `HASHES`; of states apart, the sum of theirs.

    It covers contacts (every column, and which of their identifiers they claim), live and withheld pairs, bans, what is
    blocked, and what only the log has: a steward's links, and the evidence parked with deleted contacts. Not the events
    themselves, nor the tables that are mere ways to find events (event_contact, former_claim). It is the same
    whatever the database, and whatever the order in which the rows are read.
    """
    hashed = 0
    for contact in state.contacts.values():
        hashed += _hash("contact", contact, [identifier.kind for identifier in state.claimed(contact)])
    numbered: Any = {"pair": state.pairs, "withheld": state.withheld, "link": state.links, "ban": state.bans}
    for name, rows in {**numbered, "parked": state.parked, "blocked": state.blocked}.items():
        for key, number in rows.items():
            hashed += _hash(name, key, number)
    return hashed % HASHES


def _hash(*row: Any) -> int:
    return int.from_bytes(sha256(msgspec.json.encode(row)).digest(), "big")


def _columns(row: str, log: Contact | None, table: Contact | None) -> Iterator[Difference]:
    if log is None or table is None:
        yield missing(row) if table is None else surplus(row)
        return
    for name in Contact.__struct_fields__:
        by_log, in_table = getattr(log, name), getattr(table, name)
        if by_log != in_table and name in ("email", "phone_number", "others"):
            yield Difference(row, f"its {name} is not that of the log")
        elif by_log != in_table:
            yield Difference(row, f"its {name} is {_shown(in_table)} in the table, {_shown(by_log)} by the log")


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return "none" if value is None else str(value)


def _numbered(row: str, log: int | None, table: int | None) -> Difference:
    """A row that names nothing but an event."""
    if log is None or table is None:
        return missing(row) if table is None else surplus(row)
    return Difference(row, f"is event {table}'s in the table")


def _differing(expected: Mapping[K, V], found: Mapping[K, V]) -> Iterator[tuple[K, V | None, V | None]]:
    if expected != found:
        keys: Any = expected.keys() | found.keys()
        for key in sorted(keys):
            if expected.get(key) != found.get(key):
                yield key, expected.get(key), found.get(key)


def _disconnected(state: State) -> Iterator[Difference]:
    """The clusters that evidence and links do not hold together, and the evidence that is of no cluster."""
    evidence: defaultdict[int, State] = defaultdict(lambda: _bare(state))
    for pair, seq in state.pairs.items():
        homes = {state.home(end) if state.is_live(state.claims.get(end, 0)) else None for end in pair}
        home = homes.pop()
        if homes or home is None:
            yield Difference(f"pair of event {seq}", "its two identifiers are not of one cluster")
        else:
            evidence[home].pairs[pair] = seq
    for (a, b), seq in state.links.items():
        if state.is_live(a) and state.is_live(b):
            evidence[state.primary_of(a)].links[a, b] = seq
    for primary_id, members in state.members.items():
        parts = evidence[primary_id].parts(members) if len(members) > 1 else ()
        if len(parts) > 1:
            apart = ", ".join(str(min(part)) for part in parts)
            yield Difference(f"cluster {primary_id}", f"nothing connects its {len(parts)} parts, with contacts {apart}")


def _bare(state: State) -> State:
    """The same contacts and claims, without any evidence yet."""
    bare = State()
    bare.contacts, bare.claims = state.contacts, state.claims
    return bare
