"""The databases that the tests run on, and what is true of every one of them."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from identity_graphql.storage import Storage, tables
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import Pool
from tests.models.fold import fold
from tests.support.servers import Server, Unavailable, mariadb, postgresql

NAMES = ("postgresql", "mariadb", "sqlite")
# On SQLite: the database then refuses every new contact, for no reason that the program could know of.
FAULT = "CREATE TRIGGER fault BEFORE INSERT ON contact BEGIN SELECT RAISE(ABORT, 'secret@x.io'); END"
TABLES = (
    tables.contact,
    tables.identifier,
    tables.pair,
    tables.event,
    tables.withheld_pair,
    tables.ban,
    tables.event_contact,
    tables.former_claim,
    tables.cluster_count,
)
STARTERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
}
KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "contact": itemgetter("id"),
    "identifier": itemgetter("kind", "value"),
    "pair": itemgetter("kind", "value", "other_kind", "other_value"),
    "withheld_pair": itemgetter("kind", "value", "other_kind", "other_value"),
    "ban": itemgetter("contact_id", "other_id"),
    "event_contact": itemgetter("contact_id", "seq"),
    "former_claim": itemgetter("kind", "value", "contact_id"),
    "cluster_count": itemgetter("primary_id", "kind"),
}
COUNTERS = {
    "postgresql": "SELECT sequencename, last_value FROM pg_sequences ORDER BY 1",
    "mariadb": "SELECT table_name, auto_increment FROM information_schema.tables"
    " WHERE table_schema = DATABASE() ORDER BY 1",
    "sqlite": "SELECT name, seq FROM sqlite_sequence ORDER BY 1",
}
Dump = dict[str, list[tuple[Any, ...]]]
Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Database:
    """An empty, migrated database, and the server it is on (none for SQLite)."""

    name: str
    url: str
    server: Server | None = None

    def open(self, **pool: Any) -> Storage:
        return Storage.open(Address.parse(self.url), Pool(**pool))

    async def dump(self, storage: Storage | None = None) -> Dump:
        """Every row of every table, and how far the ids have come."""
        if storage is not None:
            return await self._dump(storage)
        storage = self.open(size=1)
        try:
            return await self._dump(storage)
        finally:
            await storage.close()

    async def _dump(self, storage: Storage) -> Dump:
        async with storage.transaction() as connection:
            rows = {
                table.name: [
                    tuple(row) for row in await connection.execute(sa.select(table).order_by(*table.primary_key))
                ]
                for table in TABLES
            }
            counters = await connection.execute(sa.text(COUNTERS[self.name]))
            return {**rows, "counters": [tuple(row) for row in counters]}

    async def tables(self) -> Tables:
        """Every row of every table, by column."""
        return tables_of(await self.dump())

    async def check(self) -> Tables:
        """Assert all that must hold of any database at any moment; its tables."""
        return check(await self.tables())


def tables_of(dump: Dump) -> Tables:
    """The rows of a dump, by column."""
    return {
        table.name: [dict(zip(table.columns.keys(), row, strict=True)) for row in dump[table.name]] for table in TABLES
    }


def check(rows: Tables) -> Tables:
    """Assert all that must hold of any database at any moment; the same tables."""
    check_invariants(rows)
    check_fold(rows)
    return rows


def check_fold(rows: Tables) -> None:
    """I9: the log alone gives the tables, row by row."""
    folded = fold(rows["event"])
    for name, key in KEYS.items():
        assert folded[name] == {key(row): row for row in rows[name]}, name


def check_invariants(rows: Tables) -> None:
    """I1 to I8 and I12, from the tables alone (and the steward's links, which are in the log alone)."""
    contacts = {row["id"]: row for row in rows["contact"] if row["deleted_at"] is None}
    clusters = defaultdict(list)
    for row in contacts.values():
        clusters[row["linked_id"] or row["id"]].append(row)
    for primary_id, members in clusters.items():
        primaries = [row for row in members if row["linked_id"] is None]
        assert [row["id"] for row in primaries] == [primary_id], "one primary, and flat"
        assert min(members, key=lambda row: (row["created_at"], row["id"]))["id"] == primary_id, "the oldest"
    for row in rows["contact"]:
        assert row["link_precedence"] == ("primary" if row["linked_id"] is None else "secondary")
    claims = {(row["kind"], row["value"]): row["contact_id"] for row in rows["identifier"] if row["contact_id"]}
    assert all(row["contact_id"] or row["blocked"] is not None for row in rows["identifier"]), "no empty row"
    retracted = retractions(rows["event"])
    for row in rows["identifier"]:
        if row["blocked"] in retracted:
            assert (row["kind"], row["value"]) not in claims, "what was retracted is nobody's while it is blocked"
    for (kind, value), contact_id in claims.items():
        assert (kind, value) in carried_by(contacts[contact_id]), "a claim is of a live contact that carries the value"
    carried = {one for row in contacts.values() for one in carried_by(row)}
    free = {tuple(one) for event in rows["event"] for one in blocked_by(event)}
    assert carried - free == set(claims) - free, "every value is claimed once"
    assert set(claims) <= carried
    for row in rows["ban"]:
        if row["contact_id"] in contacts and row["other_id"] in contacts:
            one, other = (contacts[row[end]]["linked_id"] or row[end] for end in ("contact_id", "other_id"))
            assert one != other, "no two contacts of one cluster are banned from each other"

    # The partition equals union-find over the evidence.
    parent: dict[Any, Any] = {contact_id: contact_id for contact_id in contacts}

    def root(node: Any) -> Any:
        while parent[node] != node:
            node = parent[node]
        return node

    for pair in rows["pair"]:
        one, other = claims[pair["kind"], pair["value"]], claims[pair["other_kind"], pair["other_value"]]
        parent[root(one)] = root(other)
    for one, other in links(rows["event"]):
        if one in contacts and other in contacts:
            parent[root(one)] = root(other)
    claimants = set(claims.values())
    if all(event["kind"] == "identify" for event in rows["event"]):
        assert contacts.keys() == claimants, "no surplus row"
    for contact_id in contacts.keys() - claimants:
        carried_here = carried_by(contacts[contact_id])
        homes = [claims[claim] for claim in carried_here if claim in claims]
        mine = contacts[contact_id]["linked_id"] or contact_id
        with_me = [home for home in homes if (contacts[home]["linked_id"] or home) == mine]
        assert with_me or free.intersection(carried_here), (
            "a contact without a claim goes with those who claim what it carries"
        )
        if with_me:
            parent[root(contact_id)] = root(with_me[0])
    by_evidence, by_links = defaultdict(set), defaultdict(set)
    for contact_id, row in contacts.items():
        by_evidence[root(contact_id)].add(contact_id)
        by_links[row["linked_id"] or contact_id].add(contact_id)
    assert sorted(map(sorted, by_evidence.values())) == sorted(map(sorted, by_links.values()))


def carried_by(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The identifiers in the row of a contact."""
    columns = [(kind, row[kind]) for kind in ("email", "phone_number") if row[kind] is not None]
    return [*columns, *((kind, value) for kind, value in row["others"] or ())]


def blocked_by(event: dict[str, Any]) -> list[tuple[str, str]]:
    """The identifier that an event blocked, if it did."""
    return [event["detail"]["asked"]["identifier"]] if event["kind"] == "block_identifier" else []


def retractions(events: list[dict[str, Any]]) -> set[int]:
    """The events that retracted an identifier."""
    blocks = (event for event in events if event["kind"] == "block_identifier")
    return {event["seq"] for event in blocks if event["detail"]["asked"]["retract"]}


def links(events: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """What stewards linked, and nobody has taken back."""
    linked: set[tuple[int, int]] = set()
    for event in events:
        for one, other, number in (event["detail"] or {}).get("changes", {}).get("links", ()):
            if number is None:
                linked.discard((one, other))
            else:
                linked.add((one, other))
    return linked


def required() -> set[str]:
    return {name.strip() for name in os.environ.get("REQUIRE_DATABASES", "").split(",") if name.strip()}


class Databases:
    """Starts each server at its first use; migrates one database there, and empties it for every test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._servers: dict[str, Server | str] = {}
        self._migrated: set[str] = set()
        self._files = 0

    def close(self) -> None:
        self._stack.close()

    def server(self, name: str) -> Server:
        """The running server; skips or fails the test where there can be none."""
        if name not in self._servers:
            try:
                self._servers[name] = self._stack.enter_context(STARTERS[name]())
            except Unavailable as reason:
                self._servers[name] = str(reason)
        server = self._servers[name]
        if isinstance(server, Server):
            return server
        if name in required():
            pytest.fail(f"{name} is required, but {server}")
        pytest.skip(f"{name}: {server}")

    async def get(self, name: str) -> Database:
        """An empty, migrated database of this kind."""
        if name == "sqlite":
            return await self._sqlite()
        server = self.server(name)
        database = Database(name, server.url("test"), server)
        if name not in self._migrated:
            server.query("CREATE DATABASE test")
            await migrate(database)
            self._migrated.add(name)
        else:
            await empty(database)
        return database

    @contextmanager
    def another(self, name: str) -> Iterator[Database]:
        """A database of this kind, for one test alone, that nobody has migrated; gone afterwards."""
        self._files += 1
        if name == "sqlite":
            yield Database(name, f"sqlite:///{self._folder / f'another{self._files}.db'}")
            return
        server, label = self.server(name), f"another{self._files}"
        server.query(f"CREATE DATABASE {label}")
        try:
            yield Database(name, server.url(label), server)
        finally:
            server.query(f"DROP DATABASE {label}" + (" WITH (FORCE)" if name == "postgresql" else ""))

    async def _sqlite(self) -> Database:
        template = self._folder / "template.db"
        if not template.exists():
            await migrate(Database("sqlite", f"sqlite:///{template}"))
        self._files += 1
        path = self._folder / f"test{self._files}.db"
        shutil.copy(template, path)
        return Database("sqlite", f"sqlite:///{path}")


async def migrate(database: Database) -> None:
    storage = database.open(size=1)
    try:
        await storage.migrate()
    finally:
        await storage.close()


async def empty(database: Database) -> None:
    """Empty every table in place; ids begin at 1 again."""
    # A TRUNCATE makes new files, so only where ids are to begin again.
    numbered = ("contact", "event")
    deleted = [f"DELETE FROM {table.name}" for table in TABLES if table.name not in numbered]
    statements = {
        "postgresql": [*deleted, f"TRUNCATE {', '.join(numbered)} RESTART IDENTITY"],
        "mariadb": [*deleted, "SET FOREIGN_KEY_CHECKS = 0", *[f"TRUNCATE {name}" for name in numbered]],
        "sqlite": [
            "PRAGMA defer_foreign_keys = ON",
            *deleted,
            *[f"DELETE FROM {name}" for name in (*numbered, "sqlite_sequence")],
        ],
    }
    storage = database.open(size=1)
    try:
        async with storage.transaction() as connection:
            for statement in statements[database.name]:
                await connection.execute(sa.text(statement))
    finally:
        await storage.close()


def opened(folder: Path) -> Iterator[Databases]:
    databases = Databases(folder)
    try:
        yield databases
    finally:
        databases.close()
