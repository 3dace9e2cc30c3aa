"""Rebuilds the tables from the log alone. Imports nothing of the program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Rows = dict[Any, dict[str, Any]]


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Rows]:
    """Contacts by id, identifiers by (kind, value), pairs by (email, phone), from events in seq order."""
    contacts: Rows = {}
    identifiers: Rows = {}
    pairs: Rows = {}
    for event in events:
        at, primary_id = event["at"], event["primary_id"]
        values = {kind: event[kind] for kind in ("email", "phone_number") if event[kind] is not None}
        new = event["contact_id"]
        if new is not None:
            linked_id = None if event["outcome"] == "CREATED" else primary_id
            contacts[new] = {
                "id": new,
                "email": event["email"],
                "phone_number": event["phone_number"],
                "linked_id": linked_id,
                "link_precedence": "primary" if linked_id is None else "secondary",
                "created_at": at,
                "updated_at": at,
                "deleted_at": None,
                "version": 0,
                "changed_at": None,
            }
            for kind, value in values.items():
                identifiers.setdefault((kind, value), {"kind": kind, "value": value, "contact_id": new})
        for demoted in event["demoted"]:
            contact = contacts[demoted["id"]]
            assert contact["version"] == demoted["version_before"], "the log has no gap"
            contact.update(version=demoted["version_after"], changed_at=at)
            followers = [c for c in contacts.values() if c["linked_id"] == demoted["id"]]
            for moved in (contact, *followers):
                moved.update(linked_id=primary_id, link_precedence="secondary", updated_at=at)
        primary = contacts[primary_id]
        assert primary["version"] == event["version_before"], "the log has no gap"
        assert primary["changed_at"] is None or primary["changed_at"] < at, "time never runs backwards"
        primary.update(version=event["version_after"], changed_at=at)
        if len(values) == 2:
            pair = event["email"], event["phone_number"]
            assert pair not in pairs, "an event tells something new"
            pairs[pair] = {"email": pair[0], "phone_number": pair[1], "seq": event["seq"]}
    return {"contact": contacts, "identifier": identifiers, "pair": pairs}
