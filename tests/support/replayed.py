"""What the program makes of a log, side by side with the tables: its replay, and its judging all of it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from msgspec.structs import asdict

from identity_graphql.domain import undo
from identity_graphql.domain.contacts import Cluster
from identity_graphql.domain.events import Event
from identity_graphql.domain.state import Pair, State
from identity_graphql.domain.undo import NO_RULES, RuleSets
from identity_graphql.storage.event_rows import event_of
from tests.support.databases import KEYS, Dump, Tables

PROGRAMS = ("contact", "identifier", "pair", "withheld_pair", "ban")
"""the tables that the program's own state has"""


def events_of(dump: Dump) -> list[Event]:
    return [event_of(row) for row in dump["event"]]


def check_replay(state: State, rows: Tables) -> None:
    """The program's replay gives the tables, row by row."""
    replayed = rows_of(state)
    for name in PROGRAMS:
        assert {KEYS[name](row): row for row in replayed[name]} == {KEYS[name](row): row for row in rows[name]}, name


def check_judged_again(events: Sequence[Event], present: State, rules: RuleSets = NO_RULES) -> None:
    """All that counts in the log, judged again from the beginning, gives the present."""
    target, made = undo.counterfactual(events, undo.undone(events), undo.created_for(events), rules)
    assert not made, "every contact that is needed is there"
    there = structure(present)
    for name, rows in structure(target).items():
        assert rows == there[name], name
    for contact in present.contacts.values():
        wanted = target.contacts.get(contact.id)
        if wanted is None:
            assert contact.undone_at or contact.erased_at, "what no event needs any more was undone"
        else:
            assert (wanted.deleted_at is None) == (contact.deleted_at is None), contact
            assert (wanted.erased_at is None) == (contact.erased_at is None), contact
            assert contact.undone_at is None, contact


def structure(state: State) -> dict[str, Any]:
    """All of a state but versions, and times that say when something was written."""
    live = {contact.id: contact for contact in state.contacts.values() if contact.deleted_at is None}
    return {
        "live": {c.id: (c.carried, c.linked_id, c.created_at) for c in live.values()},
        "members": state.members,
        "claims": state.claims,
        "pairs": state.pairs,
        "withheld": state.withheld,
        "links": state.links,
        "bans": state.bans,
        "parked": state.parked,
        "blocked": state.blocked,
    }


def rows_of(state: State) -> Tables:
    """A state as the tables have it."""
    contacts = [asdict(contact) for contact in state.contacts.values()]
    for contact in contacts:
        del contact["claims_email"], contact["claims_phone_number"], contact["claims_others"]
        contact["others"] = [[one.kind, one.value] for one in contact["others"]] or None
        contact["link_precedence"] = "primary" if contact["linked_id"] is None else "secondary"
    return {
        "contact": contacts,
        "identifier": [
            {
                "kind": i.kind,
                "value": i.value,
                "contact_id": state.claims.get(i, 0),
                "blocked": state.blocked.get(i),
            }
            for i in state.claims.keys() | state.blocked.keys()
        ],
        "pair": [{**pair_row(pair), "seq": seq} for pair, seq in state.pairs.items()],
        "withheld_pair": [
            {**pair_row(pair), "seq": withheld.seq, "banned": withheld.banned, "limit_kind": withheld.limit_kind}
            for pair, withheld in state.withheld.items()
        ],
        "ban": [{"contact_id": one, "other_id": other, "seq": seq} for (one, other), seq in state.bans.items()],
    }


def pair_row(pair: Pair) -> dict[str, str]:
    one, other = pair
    return {"kind": one.kind, "value": one.value, "other_kind": other.kind, "other_value": other.value}


def answers(clusters: Iterable[Cluster]) -> str:
    """All clusters as they are answered, byte for byte."""
    return orjson.dumps(
        [
            {
                "primaryContactId": cluster.primary.id,
                "emails": cluster.emails,
                "phoneNumbers": cluster.phone_numbers,
                "identifiers": [(one.kind, one.value) for one in cluster.identifiers],
                "secondaryContactIds": cluster.secondary_contact_ids,
                "version": cluster.version,
                "changedAt": cluster.changed_at,
                "contacts": [(c.id, c.created_at, c.updated_at) for c in cluster.contacts],
            }
            for cluster in sorted(clusters, key=lambda cluster: cluster.primary.id)
        ]
    ).decode()
