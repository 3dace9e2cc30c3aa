"""`verify` finds nothing where nothing is wrong, and whatever is."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from identity_graphql.app import verify as verify_database
from identity_graphql.domain.components import Components
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.events import Demotion, EventKind, IdentifyEvent, Outcome
from identity_graphql.domain.identifiers import Details, Given, Normalisation, identifiers
from identity_graphql.domain.reconcile import Request, reconcile
from identity_graphql.domain.state import State
from identity_graphql.domain.verify import Difference, broken, differences, digest, rebuild
from identity_graphql.errors import ConfigurationError, Conflict
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.services.verification import Report, verify
from identity_graphql.storage import Storage
from tests.models.oracle import random_requests
from tests.support.databases import NAMES, TABLES, Database, Databases
from tests.support.identifiers import email, pair_of, phone_number
from tests.support.program import PROGRAM, environment, refused, run
from tests.support.replayed import pair_row
from tests.support.serving import settings_for

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
PERSONAL = ("@", "example", "+1555", "erased:")

Rows = Mapping[str, list[dict[str, Any]]]


async def verified(storage: Storage) -> tuple[Report, list[str]]:
    """The report, and the differences, in which nobody's email or phone number may be."""
    told: list[Difference] = []
    report = await verify(storage, told.append)
    lines = [str(difference) for difference in told]
    assert report.differences == len(lines)
    assert not [line for line in lines if any(text in line for text in PERSONAL)]
    assert len(set(lines)) == len(lines), "told once"
    return report, lines


async def carried_out(verb: Callable[[Command], Awaitable[VerbResult]]) -> VerbResult:
    """A verb, after a dry run that tells what it has to expect."""
    order = Command(actor="ann", reason="she knows", dry_run=True)
    seen = await verb(order)
    versions = {"expected_version": seen.expected_version, "expected_other_version": seen.expected_other_version}
    return await verb(replace(order, dry_run=False, **versions))


async def told(storage: Storage) -> None:
    """Requests of all kinds, and every verb of a steward, so that every table has rows."""
    service, steward = IdentityService(storage, Normalisation()), StewardService(storage, Normalisation())

    async def identify(name: str | None, number: int | None) -> int:
        decision = await service.identify(
            Given(email=name and f"{name}@example.com", phone_number=number and f"+1555{number:04}")
        )
        return decision.cluster.primary.id if decision.contact is None else decision.contact.id

    a, b = await identify("a", 1), await identify("b", 2)
    await identify("a2", 1), await identify("b2", 2)
    await identify("a", 2)  # merged
    await identify("a2", 2)  # observed
    split = await carried_out(lambda order: steward.split_cluster([b, b + 2], order))
    assert split.event.kind is EventKind.SPLIT_CLUSTER
    await identify("a2", 2)  # withheld
    c, d = await identify("c", 3), await identify("d", 4)
    merged = await carried_out(lambda order: steward.merge_clusters(c, d, order))
    await carried_out(lambda order: steward.undo(merged.event.seq, order, then_ban=True))
    await carried_out(lambda order: steward.unban_link(c, d, order))
    await carried_out(lambda order: steward.ban_link(email("c@example.com"), a, order))
    e, f = await identify("e", 5), await identify("e", 6)
    await carried_out(lambda order: steward.delete_contact(e, order))
    await identify("e", 5)
    await carried_out(lambda order: steward.restore_contact(e, order))
    await carried_out(lambda order: steward.delete_contact(f, order))
    g = await identify("g", 7)
    await identify("g2", 7), await identify("h", 8)
    await carried_out(lambda order: steward.erase_identifier(email("g2@example.com"), order))
    await carried_out(lambda order: steward.erase_cluster(g, order))
    await identify("g", 7)
    i = await identify("i", 9)
    await identify("i", 10)
    await identify("j", 9)
    # The pair is banned itself, and nobody's; then somebody else's request brings it again, and is another component's.
    last = (await storage.page_of_contacts(after=i, limit=9))[-1]
    events = [await storage.event(seq) for seq in range(1, 60)]
    bridge = next(known for known in events if isinstance(known, IdentifyEvent) and known.contact_id == last.id)
    await carried_out(lambda order: steward.undo(bridge.seq, order, then_ban=True))
    await identify("j", 9)
    for number in range(20, 31):
        await identify("k", number)
    await service.close()


async def test_a_log_of_version_1_is_replayed_as_it_was_read_then(storage: Storage, database: Database) -> None:
    """What it has could not be given any more, and stays what it is."""
    service, steward = IdentityService(storage, Normalisation()), StewardService(storage, Normalisation())
    old = Details(
        identifiers("john@example.com,", "98765432109876543211"), {"email": "John@example.com,", "phoneNumber": "..."}
    )
    for details in (old, Details(identifiers("john@example.com,", "98765432100"), {})):
        async with storage.attempt() as attempt:
            found = await attempt.find(set(details.identifiers), set(details.pairs))
            await attempt.apply(reconcile([Request(details, "1")], found))

    with pytest.raises(ConfigurationError, match=r"normalisation 1,.* set to 3\..*9876543210.*-1 count.*stored twice"):
        await service.check_normalisation()
    new = await service.identify(Given(email="john@example.com", phone_number="98765432100"))
    await service.check_normalisation()

    assert new.outcome is Outcome.LINKED
    assert new.cluster.emails == ("john@example.com,", "john@example.com")
    assert new.cluster.phone_numbers == ("98765432109876543211", "98765432100")
    deed = await carried_out(lambda order: steward.undo(2, order))
    assert [cluster.emails for cluster in deed.clusters] == [("john@example.com,",), ("john@example.com",)]
    assert [event["norm"] for event in (await database.check())["event"]] == ["1", "1", "3", "3"]
    assert (await verified(storage))[1] == []
    await service.close()


async def test_a_log_of_version_2_is_gone_on_with_once_that_is_accepted(storage: Storage, database: Database) -> None:
    """Whoever is stored by it is found as before: what reads differently now was refused then."""
    service = IdentityService(storage, Normalisation())
    said = Normalisation().details(Given(email="a@x.io", phone_number="111"))
    async with storage.attempt() as attempt:
        await attempt.apply(reconcile([Request(said, "2")], await attempt.find(set(said.identifiers), set())))

    with pytest.raises(ConfigurationError, match=r"normalisation 2,.* set to 3\..*unknown.*0022.*of version 2\."):
        await service.check_normalisation()
    assert (await service.identify(Given(email="a@x.io", phone_number="111"))).outcome is Outcome.UNCHANGED
    assert (await service.identify(Given(email="a@x.io", phone_number=-1))).outcome is Outcome.UNCHANGED
    assert (await service.identify(Given(email="Unknown", phone_number="222"))).outcome is Outcome.CREATED
    await service.check_normalisation()

    events = (await database.check())["event"]
    assert [(event["norm"], event["raw"].get("email")) for event in events] == [("2", "a@x.io"), ("3", "Unknown")]
    assert (await verified(storage))[1] == []
    await service.close()


@pytest.fixture(scope="module")
async def copy(databases: Databases) -> Rows:
    """The rows of a database in which all of that happened."""
    database = await databases.get("sqlite")
    storage = database.open()
    await told(storage)
    await storage.close()
    rows = await database.check()
    assert all(rows.values()), "every table has rows"
    return rows


async def write(storage: Storage, *statements: sa.Executable | tuple[sa.Executable, Any]) -> None:
    """Statements behind the program's back."""
    async with storage.transaction() as connection:
        for statement in statements:
            await connection.execute(*(statement if isinstance(statement, tuple) else (statement,)))


async def fill(storage: Storage, rows: Rows) -> None:
    statements: list[Any] = []
    for table in TABLES:
        columns = [column.name for column in table.columns if column.name != "link_precedence"]
        plain = [{name: row[name] for name in columns} for row in rows[table.name]]
        if table.name == "contact":
            linked = [{"of_id": row["id"], "to": row["linked_id"]} for row in plain if row["linked_id"]]
            plain = [{**row, "linked_id": None} for row in plain]
            link = table.update().where(table.c.id == sa.bindparam("of_id")).values(linked_id=sa.bindparam("to"))
            statements += [(table.insert(), plain), (link, linked)]
        else:
            statements.append((table.insert(), plain))
    await write(storage, *statements)


@pytest.fixture
async def filled(storage: Storage, copy: Rows) -> Storage:
    """Each of the three databases, with all of that in it."""
    await fill(storage, copy)
    return storage


@pytest.fixture
async def embedded(sqlite: Database) -> AsyncIterator[Storage]:
    storage = sqlite.open()
    yield storage
    await storage.close()


# --- nothing is wrong ---


async def test_an_empty_database_is_as_its_log_says(storage: Storage) -> None:
    report, lines = await verified(storage)

    assert not lines
    assert report.state_hash == "0" * 64


async def test_after_random_requests_and_every_verb_there_is_no_difference(
    database: Database, storage: Storage, service: IdentityService
) -> None:
    await told(storage)
    for start in range(3):
        await service.identify_many([Given(*said) for said in random_requests(start, 150, people=40)])
    steward = StewardService(storage, Normalisation())
    for seq in (70, 80, 90, 100):
        await carried_out(lambda order, seq=seq: steward.undo(seq, order))  # type: ignore[misc]

    report, lines = await verified(storage)

    assert lines == []
    rows = await database.check()
    assert (report.events, report.contacts, report.pairs) == tuple(
        len(rows[name]) for name in ("event", "contact", "pair")
    )


async def test_the_hash_is_the_same_on_every_database_and_another_after_another_request(
    databases: Databases, copy: Rows
) -> None:
    hashes: list[str] = []
    for name in NAMES:
        storage = (await databases.get(name)).open()
        await fill(storage, copy)
        for _ in range(2):
            report, lines = await verified(storage)
            assert lines == [], name
            hashes.append(report.state_hash)
        await storage.close()
    assert len(set(hashes)) == 1


async def test_a_request_changes_the_hash(embedded: Storage, copy: Rows) -> None:
    await fill(embedded, copy)
    before, _ = await verified(embedded)
    service = IdentityService(embedded, Normalisation())
    await service.identify(Given(email="new@example.com"))
    await service.close()

    after, lines = await verified(embedded)

    assert lines == []
    assert after.state_hash != before.state_hash
    assert after.clusters == before.clusters + 1


async def test_beside_traffic_it_sees_one_moment(databases: Databases) -> None:
    database = await databases.get("postgresql")
    storage = database.open()
    service = IdentityService(storage, Normalisation())
    requests = random_requests(7, 900, people=60)

    async def traffic(number: int) -> None:
        for said in requests[number::9]:
            await service.identify(Given(email=said[0], phone_number=said[1]))

    clients = [asyncio.ensure_future(traffic(number)) for number in range(9)]
    sizes = []
    while not all(client.done() for client in clients):
        report, lines = await verified(storage)
        assert lines == []
        sizes.append(report.events)
    await asyncio.gather(*clients)
    _, lines = await verified(storage)
    await service.close()
    await storage.close()

    assert lines == []
    assert len(set(sizes)) > 2, "it ran while the log grew"


async def test_no_statement_timeout_cuts_it_off_and_those_of_the_others_stay(database: Database) -> None:
    storage = database.open(size=1, statement_timeout=0.5)
    slow = {
        "postgresql": "SELECT pg_sleep(0.8)",
        "mariadb": "SELECT SLEEP(0.8)",
        "sqlite": "SELECT 1",
    }[database.name]
    try:
        async with storage.snapshot() as connection, storage.dialect.without_timeouts(connection):
            await connection.execute(sa.text(slow))
        if database.name != "sqlite":
            with pytest.raises(Conflict, match=r"57014 query canceled|1969 statement timeout"):
                async with storage.snapshot() as connection:
                    await connection.execute(sa.text(slow))
    finally:
        await storage.close()


# --- something is wrong ---


def one(rows: Rows, table: str, **columns: Any) -> dict[str, Any]:
    """The first row with these values; a function judges, anything else must be equal."""

    def fits(value: Any, wanted: Any) -> bool:
        return bool(wanted(value)) if callable(wanted) else bool(value == wanted)

    return next(row for row in rows[table] if all(fits(row[name], wanted) for name, wanted in columns.items()))


def there(value: Any) -> bool:
    return value is not None


def keyed(name: str, row: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    table = next(table for table in TABLES if table.name == name)
    return sa.and_(*(column == row[column.name] for column in table.primary_key))


def update(name: str, row: Mapping[str, Any], **values: Any) -> sa.Executable:
    table = next(table for table in TABLES if table.name == name)
    return table.update().where(keyed(name, row)).values(**values)


def delete(name: str, row: Mapping[str, Any]) -> sa.Executable:
    table = next(table for table in TABLES if table.name == name)
    return table.delete().where(keyed(name, row))


def insert(name: str, **values: Any) -> sa.Executable:
    table = next(table for table in TABLES if table.name == name)
    return table.insert().values(**values)


Damage = tuple[list[sa.Executable], list[str]]
LATER = timedelta(seconds=1)


def secondary(rows: Rows) -> dict[str, Any]:
    return one(rows, "contact", linked_id=there, deleted_at=None, email="a2@example.com")


def primary(rows: Rows) -> dict[str, Any]:
    return one(rows, "contact", linked_id=None, deleted_at=None, email="h@example.com")


def a_link(rows: Rows) -> Damage:
    row = secondary(rows)
    other = primary(rows)["id"]
    return [update("contact", row, linked_id=other)], [
        f"contact {row['id']}: its linked_id is {other} in the table, {row['linked_id']} by the log"
    ]


def no_link(rows: Rows) -> Damage:
    row = secondary(rows)
    return [update("contact", row, linked_id=None)], [
        f"contact {row['id']}: its linked_id is none in the table, {row['linked_id']} by the log"
    ]


def a_version(rows: Rows) -> Damage:
    row = primary(rows)
    return [update("contact", row, version=7)], [f"contact {row['id']}: its version is 7 in the table, 1 by the log"]


def a_time(rows: Rows) -> Damage:
    row = primary(rows)
    moved = row["updated_at"] + LATER
    return [update("contact", row, updated_at=moved)], [
        f"contact {row['id']}: its updated_at is {moved.isoformat()} in the table, "
        f"{row['updated_at'].isoformat()} by the log"
    ]


def a_changed_at(rows: Rows) -> Damage:
    row = primary(rows)
    return [update("contact", row, changed_at=None)], [f"contact {row['id']}: its changed_at is none in the table, "]


def a_birth(rows: Rows) -> Damage:
    row = primary(rows)
    return [update("contact", row, created_at=row["created_at"] - LATER)], [f"contact {row['id']}: its created_at is "]


def a_deletion(rows: Rows) -> Damage:
    row = primary(rows)
    return [update("contact", row, deleted_at=NOW)], [f"contact {row['id']}: its deleted_at is 2026-01-31T09:30:00"]


def a_deletion_that_was_taken_back(rows: Rows) -> Damage:
    row = one(rows, "contact", deleted_at=there, erased_at=None, undone_at=None)
    return [update("contact", row, deleted_at=None)], [f"contact {row['id']}: its deleted_at is none in the table, "]


def an_erasure_that_came_back(rows: Rows) -> Damage:
    row = one(rows, "contact", erased_at=there, email=None)
    return [update("contact", row, email="back@example.com")], [
        f"contact {row['id']}: its email is not that of the log"
    ]


def an_email(rows: Rows) -> Damage:
    row = primary(rows)
    return [update("contact", row, email="other@example.com")], [
        f"contact {row['id']}: its email is not that of the log"
    ]


def a_missing_phone_number(rows: Rows) -> Damage:
    row = primary(rows)
    return [update("contact", row, phone_number=None)], [
        f"contact {row['id']}: its phone_number is not that of the log"
    ]


def a_missing_contact(rows: Rows) -> Damage:
    row = primary(rows)
    return [delete("contact", row)], [f"contact {row['id']}: is missing from the table"]


def a_surplus_contact(rows: Rows) -> Damage:
    values = {"email": "s@example.com", "created_at": NOW, "updated_at": NOW, "version": 1}
    return [
        insert("contact", id=999, **values),
        insert("identifier", kind="email", value="s@example.com", contact_id=999),
    ], ["claim of contact 999 on an email: is not in the log", "contact 999: is not in the log"]


def a_moved_identifier(rows: Rows) -> Damage:
    row, other = one(rows, "identifier", value="h@example.com"), secondary(rows)["id"]
    return [update("identifier", row, contact_id=other)], [
        f"claim of contact {row['contact_id']} on an email: is contact {other}'s in the table"
    ]


def an_identifier_of_somebody_else_who_carries_it(rows: Rows) -> Damage:
    """Two contacts of one cluster carry it."""
    row, other = one(rows, "identifier", value="+15550001"), secondary(rows)["id"]
    return [update("identifier", row, contact_id=other)], [
        f"claim of contact {row['contact_id']} on a phone number: is contact {other}'s in the table"
    ]


def a_missing_identifier(rows: Rows) -> Damage:
    row = one(rows, "identifier", value="h@example.com")
    return [delete("identifier", row)], [f"claim of contact {row['contact_id']} on an email: is missing from the table"]


def a_surplus_identifier(rows: Rows) -> Damage:
    row = primary(rows)
    return [insert("identifier", kind="email", value="s@example.com", contact_id=row["id"])], [
        f"claim of contact {row['id']} on an email: is not in the log"
    ]


def a_surplus_identifier_of_nobody(rows: Rows) -> Damage:
    return [insert("identifier", kind="fax", value="+15559", contact_id=12345)], [
        "claim of contact 12345 on an identifier: is not in the log"
    ]


def a_missing_pair(rows: Rows) -> Damage:
    row = one(rows, "pair", value="h@example.com")
    return [delete("pair", row)], [f"pair of event {row['seq']}: is missing from the table"]


def a_surplus_pair(rows: Rows) -> Damage:
    row = one(rows, "pair", value="h@example.com")
    return [insert("pair", **pair_row(pair_of("h@example.com", "+15550003")), seq=row["seq"])], [
        f"pair of event {row['seq']}: is not in the log"
    ]


def a_pair_that_was_taken_back(rows: Rows) -> Damage:
    live = {(row["value"], row["other_value"]) for row in rows["pair"]}
    row = next(
        row for row in rows["event"] if row["outcome"] == "MERGED" and (row["email"], row["phone_number"]) not in live
    )
    return [insert("pair", **pair_row(pair_of(row["email"], row["phone_number"])), seq=row["seq"])], [
        f"pair of event {row['seq']}: is not in the log"
    ]


def a_pair_of_another_event(rows: Rows) -> Damage:
    row = one(rows, "pair", value="h@example.com")
    return [update("pair", row, seq=1)], [
        "pair of event 1: is not in the log",
        f"pair of event {row['seq']}: is missing from the table",
    ]


def a_missing_withheld_pair(rows: Rows) -> Damage:
    row = one(rows, "withheld_pair", banned=False)
    return [delete("withheld_pair", row)], [f"withheld pair of event {row['seq']}: is missing from the table"]


def a_withheld_pair_that_is_banned(rows: Rows) -> Damage:
    row = one(rows, "withheld_pair", banned=False)
    return [update("withheld_pair", row, banned=True)], [
        f"withheld pair of event {row['seq']}: is banned in the table, by the log the other way"
    ]


def a_surplus_withheld_pair(rows: Rows) -> Damage:
    return [insert("withheld_pair", **pair_row(pair_of("s@example.com", "+15559")), seq=2, banned=False)], [
        "withheld pair of event 2: is not in the log"
    ]


def a_surplus_withheld_pair_of_no_event(rows: Rows) -> Damage:
    return [insert("withheld_pair", **pair_row(pair_of("s@example.com", "+15559")), seq=9999, banned=True)], [
        "withheld pair of event 9999: is not in the log"
    ]


def a_missing_ban(rows: Rows) -> Damage:
    row = rows["ban"][0]
    return [delete("ban", row)], [
        f"ban of contacts {row['contact_id']} and {row['other_id']}: is missing from the table"
    ]


def a_surplus_ban(rows: Rows) -> Damage:
    row = primary(rows)
    return [insert("ban", contact_id=row["id"], other_id=9999, seq=1)], [
        f"ban of contacts {row['id']} and 9999: is not in the log"
    ]


def a_surplus_ban_of_nobody(rows: Rows) -> Damage:
    return [insert("ban", contact_id=8888, other_id=9999, seq=1)], ["ban of contacts 8888 and 9999: is not in the log"]


def a_ban_of_another_event(rows: Rows) -> Damage:
    row = rows["ban"][0]
    return [update("ban", row, seq=1)], [
        f"ban of contacts {row['contact_id']} and {row['other_id']}: is event 1's in the table"
    ]


def a_missing_mark(rows: Rows) -> Damage:
    row = rows["event_contact"][0]
    return [delete("event_contact", row)], [
        f"mark of event {row['seq']} on contact {row['contact_id']}: is missing from the table"
    ]


def a_surplus_mark(rows: Rows) -> Damage:
    return [insert("event_contact", contact_id=primary(rows)["id"], seq=1)], [
        f"mark of event 1 on contact {primary(rows)['id']}: is not in the log"
    ]


def a_surplus_mark_of_nobody(rows: Rows) -> Damage:
    return [insert("event_contact", contact_id=8888, seq=1)], ["mark of event 1 on contact 8888: is not in the log"]


def a_missing_count(rows: Rows) -> Damage:
    row = rows["cluster_count"][0]
    return [delete("cluster_count", row)], [
        f"count of contacts in cluster {row['primary_id']}: is missing from the table",
    ]


def a_wrong_count(rows: Rows) -> Damage:
    row = rows["cluster_count"][0]
    return [update("cluster_count", row, count=99)], [
        f"count of contacts in cluster {row['primary_id']}: is 99 in the table, {row['count']} by the log",
    ]


def a_count_of_nobody(rows: Rows) -> Damage:
    return [insert("cluster_count", primary_id=99999, kind="", count=7)], [
        "count of contacts in cluster 99999: is not in the log",
    ]


def a_missing_former_claim(rows: Rows) -> Damage:
    row = rows["former_claim"][0]
    word = "an email" if row["kind"] == "email" else "a phone number"
    return [delete("former_claim", row)], [
        f"former claim of contact {row['contact_id']} on {word}: is missing from the table"
    ]


def a_surplus_former_claim(rows: Rows) -> Damage:
    row = primary(rows)
    return [insert("former_claim", kind="email", value=row["email"], contact_id=row["id"])], [
        f"former claim of contact {row['id']} on an email: is not in the log"
    ]


def a_surplus_former_claim_on_what_he_does_not_carry(rows: Rows) -> Damage:
    row = primary(rows)
    return [insert("former_claim", kind="email", value="s@example.com", contact_id=row["id"])], [
        f"former claim of contact {row['id']} on an email: is not in the log"
    ]


def a_missing_event_in_the_middle(rows: Rows) -> Damage:
    row = one(rows, "event", email="a2@example.com", contact_id=there)
    return [delete("event", row)], [
        f"contact {row['contact_id']}: is not in the log",
        f"claim of contact {row['contact_id']} on an email: is not in the log",
        f"pair of event {row['seq']}: is not in the log",
        "expects contact 1 at version 2; the events before it lead to 1; what follows from it was not compared",
    ]


def a_missing_event_at_the_end(rows: Rows) -> Damage:
    row = one(rows, "event", email="h@example.com")
    return [delete("event", row)], [
        f"contact {row['contact_id']}: is not in the log",
        f"claim of contact {row['contact_id']} on an email: is not in the log",
        f"claim of contact {row['contact_id']} on a phone number: is not in the log",
        f"pair of event {row['seq']}: is not in the log",
    ]


def an_event_of_other_details(rows: Rows) -> Damage:
    row = one(rows, "event", email="h@example.com")
    return [update("event", row, email="other@example.com")], [
        f"contact {row['contact_id']}: its email is not that of the log",
        f"claim of contact {row['contact_id']} on an email: is missing from the table",
        f"claim of contact {row['contact_id']} on an email: is not in the log",
        f"pair of event {row['seq']}: is missing from the table",
        f"pair of event {row['seq']}: is not in the log",
    ]


def an_event_of_another_time(rows: Rows) -> Damage:
    row = one(rows, "event", email="h@example.com")
    return [update("event", row, at=row["at"] + LATER)], [
        f"contact {row['contact_id']}: its {name} is " for name in ("created_at", "updated_at", "changed_at")
    ]


def an_event_of_another_version(rows: Rows) -> Damage:
    row = one(rows, "event", kind="split_cluster")
    return [update("event", row, version_after=77)], [f"event {row['seq']}: leads contact ", ", and says 77"]


def an_event_of_a_kind_that_there_is_not(rows: Rows) -> Damage:
    row = one(rows, "event", email="h@example.com")
    return [update("event", row, kind="p@example.com")], [f"event {row['seq']}: cannot be read"]


def an_event_whose_changes_are_not_there(rows: Rows) -> Damage:
    row = one(rows, "event", kind="split_cluster")
    return [update("event", row, detail={"changes": {"contacts": ["p@example.com"]}})], [
        f"event {row['seq']}: cannot be read"
    ]


def an_event_whose_demotions_cannot_be_read(rows: Rows) -> Damage:
    row = one(rows, "event", outcome="MERGED")
    return [update("event", row, demoted=["p@example.com"])], [f"event {row['seq']}: cannot be read"]


def an_event_that_changed_another_row(rows: Rows) -> Damage:
    row = one(rows, "event", kind="split_cluster")
    changes = dict(row["detail"]["changes"])
    changes["bans"] = []
    return [update("event", row, detail={**row["detail"], "changes": changes})], ["ban of contacts ", "not in the log"]


DAMAGES = (
    a_link,
    no_link,
    a_version,
    a_time,
    a_changed_at,
    a_birth,
    a_deletion,
    a_deletion_that_was_taken_back,
    an_erasure_that_came_back,
    an_email,
    a_missing_phone_number,
    a_missing_contact,
    a_surplus_contact,
    a_moved_identifier,
    an_identifier_of_somebody_else_who_carries_it,
    a_missing_identifier,
    a_surplus_identifier,
    a_surplus_identifier_of_nobody,
    a_missing_pair,
    a_surplus_pair,
    a_pair_that_was_taken_back,
    a_pair_of_another_event,
    a_missing_withheld_pair,
    a_withheld_pair_that_is_banned,
    a_surplus_withheld_pair,
    a_surplus_withheld_pair_of_no_event,
    a_missing_ban,
    a_surplus_ban,
    a_surplus_ban_of_nobody,
    a_ban_of_another_event,
    a_missing_mark,
    a_surplus_mark,
    a_surplus_mark_of_nobody,
    a_missing_count,
    a_wrong_count,
    a_count_of_nobody,
    a_missing_former_claim,
    a_surplus_former_claim,
    a_surplus_former_claim_on_what_he_does_not_carry,
    a_missing_event_in_the_middle,
    a_missing_event_at_the_end,
    an_event_of_other_details,
    an_event_of_another_time,
    an_event_of_another_version,
    an_event_of_a_kind_that_there_is_not,
    an_event_whose_changes_are_not_there,
    an_event_whose_demotions_cannot_be_read,
    an_event_that_changed_another_row,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_whatever_is_wrong_is_found_and_named(
    filled: Storage, copy: Rows, damage: Callable[[Rows], Damage]
) -> None:
    statements, expected = damage(copy)
    await write(filled, *statements)

    _, lines = await verified(filled)

    for text in expected:
        assert any(text in line for line in lines), (text, lines)
    for line in lines:
        assert any(text in line for text in expected), line


async def test_the_differences_of_a_whole_table_are_told_one_by_one(filled: Storage, copy: Rows) -> None:
    await write(filled, sa.text("DELETE FROM identifier"), sa.text("DELETE FROM pair"))

    _, lines = await verified(filled)

    assert len(lines) == len(copy["identifier"]) + len(copy["pair"])


# --- by itself, without a database ---


def request(seq: int, version: int, **columns: Any) -> IdentifyEvent:
    """A request of cluster 1, ``seq`` seconds after the first; ``version`` is its cluster's before."""
    nothing: dict[str, Any] = dict.fromkeys(("email", "phone_number", "contact_id"))
    common = {"outcome": Outcome.LINKED, "raw": {}, "norm": "1", "demoted": ()}
    return IdentifyEvent(
        seq=seq,
        at=NOW + timedelta(seconds=seq),
        version_before=version,
        version_after=version + 1,
        **(nothing | common | {"primary_id": 1} | columns),
    )


LOG = (
    request(1, 0, email="a@example.com", phone_number="1", contact_id=1),
    request(2, 1, email="b@example.com", phone_number="1", contact_id=2),
    request(3, 0, email="c@example.com", phone_number="3", contact_id=3, primary_id=3),
    request(4, 2, email="c@example.com", phone_number="1", demoted=(Demotion(3, 1, 2),)),
)


def rebuilt() -> State:
    return rebuild((event.seq, event) for event in LOG).state


def test_a_rebuilt_log_is_no_different_from_itself_and_breaks_nothing() -> None:
    again = rebuild((event.seq, event) for event in LOG)

    assert again.problem is None
    assert list(differences(again.rows, again.rows)) == []
    assert list(broken(again.state)) == []


def test_a_gap_ends_the_rebuilding_and_names_the_event() -> None:
    found = rebuild((event.seq, event) for event in (LOG[0], LOG[2], LOG[3]))

    assert str(found.problem).startswith("event 4: expects contact 1 at version 2; the events before it lead to 1;")
    assert found.state.contacts.keys() == {1, 3}


def test_an_event_that_cannot_be_read_ends_the_rebuilding() -> None:
    assert str(rebuild([(1, LOG[0]), (2, None)]).problem).startswith("event 2: cannot be read")


def linked_to(contact: int, primary: int | None) -> Callable[[State], None]:
    def change(state: State) -> None:
        state.put(replace(state.contacts[contact], linked_id=primary))

    return change


def born(contact: int, at: datetime) -> Callable[[State], None]:
    def change(state: State) -> None:
        state.put(replace(state.contacts[contact], created_at=at))

    return change


def deleted(contact: int) -> Callable[[State], None]:
    def change(state: State) -> None:
        state.put(replace(state.contacts[contact], deleted_at=NOW))

    return change


def banned(state: State) -> None:
    state.bans[1, 2] = 9


def without_evidence(state: State) -> None:
    del state.pairs[pair_of("c@example.com", "1")]


def claimed_by_another(state: State) -> None:
    state.claims[email("a@example.com")] = 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (linked_to(2, None), ["pair of event 2: its two identifiers are not of one cluster"]),
        (linked_to(2, 3), ["cluster 3: its primary is deleted, or a secondary itself"]),
        (born(2, NOW), ["cluster 1: contact 2 is older than its primary"]),
        (deleted(1), ["cluster 1: its primary is deleted, or a secondary itself"]),
        (banned, ["cluster 1: its contacts 1 and 2 are banned from each other"]),
        (without_evidence, ["cluster 1: nothing connects its 2 parts, with contacts 1, 3"]),
        (claimed_by_another, ["claim of contact 2 on an email: is of a contact that is deleted, or does not carry it"]),
    ],
    ids=[
        "evidence across",
        "not flat",
        "not the oldest",
        "a deleted primary",
        "banned",
        "not connected",
        "not carried",
    ],
)
def test_an_invariant_that_does_not_hold_is_told(change: Callable[[State], None], told: list[str]) -> None:
    state = rebuilt()
    change(state)

    assert [line for line in map(str, broken(state)) if line in told] == told


def test_the_hash_of_states_apart_is_the_sum_of_theirs_whatever_their_order() -> None:
    backwards = State()
    state = rebuilt()
    for contact in reversed(state.contacts.values()):
        backwards.put(contact)
    backwards.claims = dict(reversed(state.claims.items()))
    backwards.pairs = dict(reversed(state.pairs.items()))
    one, other = (rebuild([(event.seq, event)]).state for event in (LOG[0], LOG[2]))
    both = rebuild((event.seq, event) for event in (LOG[0], LOG[2])).state

    assert digest(backwards) == digest(state)
    assert digest(both) == (digest(one) + digest(other)) % 2**256


def test_a_claim_that_moved_changes_the_hash() -> None:
    state = rebuilt()
    before = digest(state)
    state.claims[phone_number("1")] = 2

    assert digest(state) != before


def components(contacts: list[int], events: list[tuple[int, list[int]]]) -> Components:
    found = Components(array("q", contacts))
    for seq, named in events:
        found.add(seq, named)
    found.gather()
    return found


def test_contacts_that_an_event_named_together_are_one_family_with_all_their_events() -> None:
    found = components([1, 2, 3, 5, 900], [(1, [1]), (2, [2]), (4, [5]), (7, [900]), (9, [5, 1]), (10, [1])])

    assert list(found) == [[1, 4, 9, 10], [2], [7]]
    assert list(found.unlogged()) == [3]
    assert [contact for contact in (1, 4, 900) if found.knows(contact)] == [1, 900]


def test_contacts_that_only_the_log_names_have_families_too() -> None:
    found = components([2], [(1, [1]), (2, [7, 2]), (3, [1, -4])])

    assert sorted(found) == [[1, 3], [2]]
    assert found.knows(-4)


def test_those_who_spoke_of_a_withheld_pair_are_one_family() -> None:
    found = Components(array("q", [1, 2, 3]))
    pair = pair_of("a@example.com", "1")
    found.keeps_back(found.add(1, [1]), pair)
    found.speaks(found.add(2, [2]), pair)
    found.speaks(found.add(3, [3]), pair_of("a@example.com", "2"))
    found.gather()

    assert list(found) == [[1, 2], [3]]


# --- the program ---


async def test_the_program_says_that_there_is_no_difference(
    sqlite: Database, embedded: Storage, copy: Rows, tmp_path: Path
) -> None:
    await fill(embedded, copy)
    report, _ = await verified(embedded)

    result = run(tmp_path, "verify", DATABASE_URL=sqlite.url)

    assert (result.returncode, result.stderr) == (0, "")
    lines = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines())
    assert result.stdout.startswith("no difference\n")
    assert lines["events"] == str(report.events)
    assert lines["clusters"] == str(report.clusters)
    assert lines["live pairs"] == str(report.pairs)
    assert lines["state hash"] == report.state_hash


async def test_the_program_prints_every_difference_and_fails(
    sqlite: Database, embedded: Storage, copy: Rows, tmp_path: Path
) -> None:
    await fill(embedded, copy)
    await write(embedded, *a_version(copy)[0], *a_missing_pair(copy)[0])

    result = run(tmp_path, "verify", DATABASE_URL=sqlite.url)

    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (1, "")
    assert lines[:2] == [*a_version(copy)[1], *a_missing_pair(copy)[1]]
    assert lines[2] == "2 differences"
    assert not [text for text in PERSONAL if text in result.stdout]


def test_where_there_is_no_database_the_program_says_so_and_makes_none(tmp_path: Path) -> None:
    assert "There is no database" in refused(run(tmp_path, "verify"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TABLE alembic_version", "was never migrated: run `identity-graphql migrate`"),
        ("UPDATE alembic_version SET version_num = '0001'", "is of an older program (its revision is 0001)"),
        ("UPDATE alembic_version SET version_num = '9999'", "A newer version of this program made this database"),
    ],
    ids=["never migrated", "older", "newer"],
)
async def test_another_revision_is_refused(sqlite: Database, embedded: Storage, statement: str, says: str) -> None:
    await write(embedded, sa.text(statement))

    with pytest.raises(ConfigurationError, match=re.escape(says)):
        await verify_database(settings_for(sqlite.url), print)


async def test_what_cannot_be_read_at_all_does_not_look_like_a_difference(
    sqlite: Database, embedded: Storage, copy: Rows, tmp_path: Path
) -> None:
    await fill(embedded, copy)
    await write(embedded, sa.text("UPDATE contact SET created_at = 'p@example.com' WHERE id = 1"))

    result = run(tmp_path, "verify", DATABASE_URL=sqlite.url)

    assert result.returncode == 2
    assert "says nothing about the data" in result.stderr
    assert "p@example.com" not in result.stdout + result.stderr


def test_a_bar_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    run(tmp_path, "migrate")
    terminal, other = os.openpty()
    with subprocess.Popen(
        [PROGRAM, "verify"],
        cwd=tmp_path,
        env=environment(TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=other,
        text=True,
    ) as program:
        out, _ = program.communicate(timeout=60)
    os.close(other)
    drawn = os.read(terminal, 65_536).decode()
    os.close(terminal)

    assert "Verifying" in drawn
    assert "100%" in drawn
    assert out.startswith("no difference\n")
