"""Rebuilds the tables from the log alone. Imports nothing of the program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Rows = dict[Any, dict[str, Any]]


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Rows]:
    """The rows of every table by their keys, from events in seq order."""
    tables: dict[str, Rows] = {
        name: {} for name in ("contact", "identifier", "pair", "withheld_pair", "ban", "event_contact", "former_claim")
    }
    contacts = tables["contact"]
    for event in events:
        primary = contacts.get(event["primary_id"])
        assert (primary["version"] if primary else 0) == event["version_before"], "the log has no gap"
        assert not primary or primary["changed_at"] is None or primary["changed_at"] < event["at"], (
            "time never runs backwards"
        )
        (_request if event["kind"] == "identify" else _verb)(tables, event)
    return tables


def _request(tables: dict[str, Rows], event: Mapping[str, Any]) -> None:
    contacts, identifiers, pairs, withheld = (
        tables[name] for name in ("contact", "identifier", "pair", "withheld_pair")
    )
    at, primary_id, kept_back = event["at"], event["primary_id"], event["outcome"] == "WITHHELD"
    new = event["contact_id"]
    if new is not None:
        values = {"email": event["email"], "phone_number": None if kept_back else event["phone_number"]}
        linked_id = None if new == primary_id else primary_id
        contacts[new] = {
            "id": new,
            **values,
            "linked_id": linked_id,
            "link_precedence": "primary" if linked_id is None else "secondary",
            "created_at": at,
            "updated_at": at,
            "deleted_at": None,
            "version": 0,
            "changed_at": None,
            "erased_at": None,
            "undone_at": None,
        }
        for kind, value in values.items():
            if value is not None:
                identifiers.setdefault((kind, value), {"kind": kind, "value": value, "contact_id": new})
    for demoted in event["demoted"]:
        contact = contacts[demoted["id"]]
        assert contact["version"] == demoted["version_before"], "the log has no gap"
        contact.update(version=demoted["version_after"], changed_at=at)
        followers = [c for c in contacts.values() if c["linked_id"] == demoted["id"] and c["deleted_at"] is None]
        for moved in (contact, *followers):
            moved.update(linked_id=primary_id, link_precedence="secondary", updated_at=at)
    contacts[primary_id].update(version=event["version_after"], changed_at=at)
    if event["email"] and event["phone_number"]:
        pair = "email", event["email"], "phone_number", event["phone_number"]
        row = _pair(pair, event["seq"])
        assert pair not in pairs, "an event tells something new"
        if kept_back:
            withheld.setdefault(pair, {**row, "banned": False})
        else:
            pairs[pair] = row
            withheld.pop(pair, None)


def _verb(tables: dict[str, Rows], event: Mapping[str, Any]) -> None:
    """A steward's: its event says what every row is like afterwards."""
    contacts = tables["contact"]
    seq, changes = event["seq"], event["detail"]["changes"]
    about = {event["primary_id"], *event["detail"]["about"]}
    for created in changes.get("created", ()):
        row = {
            name: created[name]
            for name in ("id", "email", "phone_number", "linked_id", "created_at", "updated_at", "version")
        }
        contacts[row["id"]] = {**row, "changed_at": None, "deleted_at": None, "erased_at": None, "undone_at": None}
        _moments(contacts[row["id"]], created)
        about.add(row["id"])
    for changed in changes.get("contacts", ()):
        contacts[changed["id"]].update(changed)
        _moments(contacts[changed["id"]], changed)
        about.add(changed["id"])
    for contact in contacts.values():
        contact["link_precedence"] = "primary" if contact["linked_id"] is None else "secondary"
    for (kind, value), contact_id in changes.get("claims", ()):
        before = tables["identifier"].pop((kind, value), None)
        if contact_id is not None:
            tables["identifier"][kind, value] = {"kind": kind, "value": value, "contact_id": contact_id}
            about.add(contact_id)
        if before is not None and event["kind"] != "erase":
            claim = {"kind": kind, "value": value, "contact_id": before["contact_id"]}
            tables["former_claim"][tuple(claim.values())] = claim
    for (one, other), number in changes.get("pairs", ()):
        _set(tables["pair"], (*one, *other), _pair((*one, *other), number or seq), number)
    for (one, other), number, banned in changes.get("withheld", ()):
        row = {**_pair((*one, *other), number or seq), "banned": banned}
        _set(tables["withheld_pair"], (*one, *other), row, number)
    for one, other, number in changes.get("bans", ()):
        _set(tables["ban"], (one, other), {"contact_id": one, "other_id": other, "seq": number or seq}, number)
        about |= {one, other}
    for one, other, _ in changes.get("links", ()):
        about |= {one, other}
    for contact_id in about:
        tables["event_contact"][contact_id, seq] = {"contact_id": contact_id, "seq": seq}
    if event["kind"] == "erase":
        erased = {(kind, value) for kind, value in event["detail"]["asked"]["identifiers"]}
        for key in [key for key in tables["former_claim"] if key[:2] in erased]:
            del tables["former_claim"][key]


def _pair(key: tuple[str, str, str, str], seq: int) -> dict[str, Any]:
    return {"kind": key[0], "value": key[1], "other_kind": key[2], "other_value": key[3], "seq": seq}


def _moments(row: dict[str, Any], document: Mapping[str, Any]) -> None:
    for name, value in document.items():
        if name.endswith("_at"):
            row[name] = None if value is None else datetime.fromisoformat(value)


def _set(rows: Rows, key: Any, row: dict[str, Any], number: int | None) -> None:
    """None: it is gone; 0 stands for the event itself."""
    if number is None:
        rows.pop(key, None)
    else:
        rows[key] = row
