"""Rebuilds the tables from the log alone. Imports nothing of the program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import combinations
from typing import Any

Rows = dict[Any, dict[str, Any]]


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Rows]:
    """The rows of every table by their keys, from events in seq order."""
    tables: dict[str, Rows] = {
        name: {}
        for name in (
            "contact",
            "identifier",
            "pair",
            "withheld_pair",
            "ban",
            "event_contact",
            "former_claim",
            "cluster_count",
        )
    }
    contacts = tables["contact"]
    for event in events:
        primary = contacts.get(event["primary_id"])
        assert (primary["version"] if primary else 0) == event["version_before"], "the log has no gap"
        assert not primary or primary["changed_at"] is None or primary["changed_at"] < event["at"], (
            "time never runs backwards"
        )
        (_request if event["kind"] == "identify" else _verb)(tables, event)
    _count(tables)
    return tables


def _count(tables: dict[str, Rows]) -> None:
    """How large the clusters are in the end, where that is much."""
    homes = {row["id"]: row["linked_id"] or row["id"] for row in tables["contact"].values() if not row["deleted_at"]}
    counted = [(home, "") for home in homes.values()]
    counted += [(homes[row["contact_id"]], row["kind"]) for row in tables["identifier"].values() if row["contact_id"]]
    for (primary_id, kind), count in Counter(counted).items():
        if count >= (10 if kind in ("", "email", "phone_number") else 2):
            row = {"primary_id": primary_id, "kind": kind, "count": count}
            tables["cluster_count"][primary_id, kind] = row


def _request(tables: dict[str, Rows], event: Mapping[str, Any]) -> None:
    contacts, identifiers, pairs, withheld = (
        tables[name] for name in ("contact", "identifier", "pair", "withheld_pair")
    )
    at, primary_id = event["at"], event["primary_id"]
    detail = event["detail"] or {}
    waiting = {(kind, value): limit_kind for (kind, value), limit_kind in detail.get("kept_back", ())}
    brought = [(kind, event[kind]) for kind in ("email", "phone_number") if event[kind] is not None]
    brought += [(kind, value) for kind, value in event["others"] or ()]
    joined = [one for one in brought if one not in waiting]
    new = event["contact_id"]
    if new is not None:
        values: dict[str, Any] = {"email": None, "phone_number": None}
        others = []
        for kind, value in joined:
            if kind in values and values[kind] is None:
                values[kind] = value
            else:
                others.append([kind, value])
        linked_id = None if new == primary_id else primary_id
        contacts[new] = {
            "id": new,
            **values,
            "linked_id": linked_id,
            "link_precedence": "primary" if linked_id is None else "secondary",
            "created_at": at if event["occurred_at"] is None else min(at, event["occurred_at"]),
            "updated_at": at,
            "deleted_at": None,
            "version": 0,
            "changed_at": None,
            "erased_at": None,
            "undone_at": None,
            "others": sorted(others) or None,
        }
        for kind, value in joined:
            identifiers.setdefault((kind, value), {"kind": kind, "value": value, "contact_id": new, "blocked": None})
    for demoted in event["demoted"]:
        contact = contacts[demoted["id"]]
        assert contact["version"] == demoted["version_before"], "the log has no gap"
        contact.update(version=demoted["version_after"], changed_at=at)
        followers = [c for c in contacts.values() if c["linked_id"] == demoted["id"] and c["deleted_at"] is None]
        for moved in (contact, *followers):
            moved.update(linked_id=primary_id, link_precedence="secondary", updated_at=at)
    contacts[primary_id].update(version=event["version_after"], changed_at=at)
    fresh = new is not None or bool(event["demoted"])
    for one, other in combinations(sorted(joined), 2):
        pair = (*one, *other)
        fresh = fresh or pair not in pairs
        pairs.setdefault(pair, _pair(pair, event["seq"]))
        withheld.pop(pair, None)
    for kept, limit_kind in waiting.items():
        for one in joined:
            pair = (*min(one, kept), *max(one, kept))
            if pair not in pairs:
                fresh = fresh or pair not in withheld
                row = {**_pair(pair, event["seq"]), "banned": False, "limit_kind": limit_kind}
                withheld.setdefault(pair, row)
    assert fresh, "an event tells something new"
    for contact_id in detail.get("kept_from", ()):
        tables["event_contact"][contact_id, event["seq"]] = {"contact_id": contact_id, "seq": event["seq"]}


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
        contacts[row["id"]] = {
            **row,
            "others": [list(one) for one in created.get("others", ())] or None,
            "changed_at": None,
            "deleted_at": None,
            "erased_at": None,
            "undone_at": None,
        }
        _moments(contacts[row["id"]], created)
        about.add(row["id"])
    for changed in changes.get("contacts", ()):
        contacts[changed["id"]].update(changed)
        if "others" in changed:
            contacts[changed["id"]]["others"] = [list(one) for one in changed["others"]] or None
        _moments(contacts[changed["id"]], changed)
        about.add(changed["id"])
    for contact in contacts.values():
        contact["link_precedence"] = "primary" if contact["linked_id"] is None else "secondary"
    for (kind, value), contact_id in changes.get("claims", ()):
        before = _identifier(tables["identifier"], kind, value, contact_id=contact_id or 0)
        if contact_id is not None:
            about.add(contact_id)
        if before["contact_id"] and event["kind"] != "erase":
            claim = {"kind": kind, "value": value, "contact_id": before["contact_id"]}
            tables["former_claim"][tuple(claim.values())] = claim
    for (kind, value), number in changes.get("blocked", ()):
        _identifier(tables["identifier"], kind, value, blocked=seq if number == 0 else number)
    for (one, other), number in changes.get("pairs", ()):
        _set(tables["pair"], (*one, *other), _pair((*one, *other), number or seq), number)
    for (one, other), number, banned, *limit_kind in changes.get("withheld", ()):
        row = {**_pair((*one, *other), number or seq), "banned": banned, "limit_kind": [*limit_kind, None][0]}
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


def _identifier(rows: Rows, kind: str, value: str, **columns: int | None) -> dict[str, Any]:
    """Change a row, which is there as long as somebody claims the value or it is blocked; the row as it was."""
    before = rows.pop((kind, value), {"kind": kind, "value": value, "contact_id": 0, "blocked": None})
    after = {**before, **columns}
    if after["contact_id"] or after["blocked"] is not None:
        rows[kind, value] = after
    return before


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
