"""Whatever requests and stewards do, in any order: after every step everything that must hold, holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from identity_graphql.domain import bans, erasure
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.events import Event, EventKind, IdentifyEvent
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Given, Identifier, Normalisation
from identity_graphql.domain.kinds import NO_KINDS_DECLARED, Kinds
from identity_graphql.domain.replay import step
from identity_graphql.domain.state import Node, State
from identity_graphql.errors import Gone, IdentityError, InvalidInput, Refused
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService
from tests.models.fold import Rows, fold
from tests.models.memory import undone
from tests.models.separations import Customers, Separations, Two
from tests.support.databases import NAMES, Database, Databases, Dump, Tables, check, empty, tables_of
from tests.support.examples import examples
from tests.support.replayed import answers, check_judged_again, check_replay, events_of

EXAMPLES = {"sqlite": examples(10, 100), "postgresql": examples(5, 25), "mariadb": examples(4, 15)}
FEW = {"sqlite": 10, "postgresql": 5, "mariadb": 4}
"""Of requests of 4 kinds with limits; always the same ones."""
"""that fit into about 15 seconds each"""
EMAILS = tuple(f"{name}@example.com" for name in ("ada", "bob", "cyd", "dee"))
PHONE_NUMBERS = tuple(f"+4930901820{n}" for n in range(4))
OTHERS = {"customer_id": ("client-one", "client-two", "client-three"), "device_id": ("gadget-one", "gadget-two")}
VALUES = {EMAIL: EMAILS, PHONE_NUMBER: PHONE_NUMBERS, **OTHERS}
IDENTIFIERS = tuple(Identifier(kind, value) for kind, values in VALUES.items() for value in values)
KINDS = {
    "plain": NO_KINDS_DECLARED,
    "limited": Kinds.parse(
        '{"customer_id": {"limit": 1, "on_limit": "withhold"}, "device_id": {"limit": 1}, '
        '"email": {"limit": 2, "on_limit": "withhold"}}'
    ),
}

emails = st.sampled_from(EMAILS)
phone_numbers = st.sampled_from(PHONE_NUMBERS)
plain = st.one_of(
    st.tuples(emails, phone_numbers),
    st.tuples(emails, phone_numbers),
    st.tuples(emails, st.none()),
    st.tuples(st.none(), phone_numbers),
).map(lambda said: Given(*said))
moments = st.sampled_from([None, None, datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)])
sets = st.builds(
    lambda said, moment: Given(identifiers=[(one.kind, one.value) for one in said], occurred_at=moment),
    st.lists(st.sampled_from(IDENTIFIERS), min_size=1, max_size=4),
    moments,
)
number = st.integers(0, 9)
"""which contact, or which event: the n-th newest"""
seldom = st.integers(0, 4).map(lambda n: n == 4)


class World:
    """One database, and one event loop, for all examples of a test."""

    def __init__(self, database: Database, runner: asyncio.Runner, kinds: Kinds) -> None:
        self.database = database
        self.run = runner.run
        self.storage = database.open(size=2)
        self.rules = Normalisation(kinds=kinds)
        self.service = IdentityService(self.storage, self.rules)
        self.steward = StewardService(self.storage, self.rules)
        self.said = plain if kinds is NO_KINDS_DECLARED else st.one_of(sets, sets, plain)

    def dump(self) -> Dump:
        return self.run(self.database.dump(self.storage))

    async def close(self) -> None:
        await self.service.close()
        await self.storage.close()


class Machine(RuleBasedStateMachine):
    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.run(empty(self.world.database))
        self.dumped = self.world.dump()
        self.state = State()
        self.events: list[Event] = []
        self.recorded: dict[int, str] = {}
        """what was answered after each event"""
        self.separations = Separations()
        self.customers: Customers = {}

    # -- what happens

    @rule(data=st.data())
    def identify(self, data: st.DataObject) -> None:
        said = data.draw(self.world.said)
        given = self.world.service.normalisation.details(said).identifiers
        if set(given) <= self.state.blocked.keys():
            with pytest.raises(InvalidInput):
                self.world.run(self.world.service.identify(said))
            assert self.world.dump() == self.dumped, "what says nothing writes nothing"
            return
        self.world.run(self.world.service.identify(said))
        self.check()

        again = self.world.run(self.world.service.identify(said))

        assert again.outcome == "UNCHANGED"
        assert self.world.dump() == self.dumped, "what learns nothing writes nothing"

    @rule(data=st.data())
    def identify_many(self, data: st.DataObject) -> None:
        self.world.run(self.world.service.identify_many(data.draw(st.lists(self.world.said, min_size=2, max_size=4))))
        self.check()

    @precondition(lambda self: self.events)
    @rule(one=number, other=number)
    def merge_clusters(self, one: int, other: int) -> None:
        a, b = self.contact(one), self.contact(other)
        self.order(lambda steward, order: steward.merge_clusters(a, b, order))

    @precondition(lambda self: self.events)
    @rule(contacts=st.sets(number, min_size=1, max_size=4), moved=st.sets(st.sampled_from(IDENTIFIERS)), ban=seldom)
    def split_cluster(self, contacts: set[int], moved: set[Identifier], ban: bool) -> None:
        ids = [self.contact(n) for n in contacts]
        self.order(lambda steward, order: steward.split_cluster(ids, order, identifiers=sorted(moved), ban=not ban))

    @precondition(lambda self: self.large)
    @rule(n=number, m=number)
    def split_a_cluster_in_two(self, n: int, m: int) -> None:
        members = sorted(self.large[n % len(self.large)])
        out = members[1 + m % (len(members) - 1) :]
        self.order(lambda steward, order: steward.split_cluster(out, order))

    @precondition(lambda self: self.events)
    @rule(n=number, then_ban=seldom)
    def undo(self, n: int, then_ban: bool) -> None:
        seq = self.event(n)
        self.order(lambda steward, order: steward.undo(seq, order, then_ban=then_ban))

    @precondition(lambda self: self.told)
    @rule(n=number)
    def undo_and_ban(self, n: int) -> None:
        seq = self.told[-1 - n % len(self.told)]
        self.order(lambda steward, order: steward.undo(seq, order, then_ban=True))

    @precondition(lambda self: self.events)
    @rule(one=number, other=number)
    def ban_link(self, one: int, other: int) -> None:
        a, b = self.contact(one), self.contact(other)
        self.order(lambda steward, order: steward.ban_link(a, b, order))

    @precondition(lambda self: self.events)
    @rule(a=st.sampled_from(IDENTIFIERS), b=st.sampled_from(IDENTIFIERS))
    def ban_link_of_identifiers(self, a: Identifier, b: Identifier) -> None:
        self.order(lambda steward, order: steward.ban_link(a, b, order))

    @precondition(lambda self: self.dumped["ban"])
    @rule(n=number, rejudge=st.booleans())
    def unban_link(self, n: int, rejudge: bool) -> None:
        rows = self.dumped["ban"]
        a, b, _ = rows[n % len(rows)]
        self.order(lambda steward, order: steward.unban_link(a, b, order, rejudge=rejudge))

    @precondition(lambda self: self.events)
    @rule(a=st.sampled_from(EMAILS), b=st.sampled_from(PHONE_NUMBERS), rejudge=st.booleans())
    def unban_link_of_identifiers(self, a: str, b: str, rejudge: bool) -> None:
        ends: tuple[Node, Node] = Identifier(PHONE_NUMBER, b), Identifier(EMAIL, a)
        self.order(lambda steward, order: steward.unban_link(*ends, order, rejudge=rejudge))

    @precondition(lambda self: self.events)
    @rule(n=number)
    def delete_contact(self, n: int) -> None:
        contact_id = self.contact(n)
        self.order(lambda steward, order: steward.delete_contact(contact_id, order))

    @precondition(lambda self: self.dead)
    @rule(n=number)
    def restore_contact(self, n: int) -> None:
        contact_id = self.dead[n % len(self.dead)]
        self.order(lambda steward, order: steward.restore_contact(contact_id, order))

    @precondition(lambda self: len(self.events) > 6)
    @rule(n=number)
    def erase_cluster(self, n: int) -> None:
        contact_id = self.contact(n)
        self.order(lambda steward, order: steward.erase_cluster(contact_id, order))

    @precondition(lambda self: len(self.events) > 3)
    @rule(identifier=st.sampled_from(IDENTIFIERS))
    def erase_identifier(self, identifier: Identifier) -> None:
        self.order(lambda steward, order: steward.erase_identifier(identifier, order))

    # -- what must hold

    def order(self, ask: Callable[[StewardService, Command], Awaitable[VerbResult]]) -> None:
        """First as a dry run: it writes nothing, and says what will happen."""

        async def asked(**versions: Any) -> VerbResult | IdentityError:
            reason = f"EventBatch by {EMAILS[0].upper()}, {PHONE_NUMBERS[0]}"
            try:
                return await ask(self.world.steward, Command(f"steward {EMAILS[1]}", reason, **versions))
            except IdentityError as error:
                return error

        foreseen = self.world.run(asked(dry_run=True))
        assert self.world.dump() == self.dumped, "a dry run writes nothing"
        if isinstance(foreseen, IdentityError):
            assert isinstance(self.world.run(asked(expected_version=1, expected_other_version=1)), IdentityError)
            assert self.world.dump() == self.dumped, "what is refused changes nothing"
            return
        seen, other = foreseen.expected_version, foreseen.expected_other_version
        outdated = self.world.run(asked(expected_version=seen + 1, expected_other_version=other))
        assert isinstance(outdated, Refused)
        assert self.world.dump() == self.dumped, "what is refused changes nothing"

        result = self.world.run(asked(expected_version=seen, expected_other_version=other))

        assert isinstance(result, VerbResult), result
        created = zip(foreseen.changes.created, result.changes.created, strict=True)
        ids = {provisional.id: real.id for provisional, real in created}
        assert comparable(result, {}) == comparable(foreseen, ids), "a dry run says what will happen"
        self.check()
        assert msgspec.json.encode(result.event) == msgspec.json.encode(self.events[-1])
        assert {cluster.primary.id: cluster for cluster in result.clusters}.items() <= {
            primary_id: self.state.cluster(primary_id) for primary_id in self.state.members
        }.items()

    def check(self) -> None:
        world = self.world
        before = {event.seq: event for event in self.events}
        self.dumped = world.dump()
        self.events = events_of(self.dumped)
        rows = check(tables_of(self.dumped))

        for event in self.events:
            if event.seq in before:
                self._erased(before[event.seq], event)
        self.state = State()
        for event in self.events:
            step(self.state, event)
            if event.seq in self.recorded:
                assert answers(self.state.clusters()) == self.recorded[event.seq], f"the answer after event {event.seq}"
        check_replay(self.state, rows)
        check_judged_again(self.events, self.state, {world.rules.version: world.rules.kinds})
        self._check_bans(rows, [event.seq for event in self.events if event.seq not in before])

        clusters = world.run(world.service.page_of_clusters(after=0, limit=100))
        assert answers(clusters) == answers(self.state.clusters())
        if self.events:
            self.recorded[self.events[-1].seq] = answers(clusters)
        self._check_ids(range(1, len(rows["contact"]) + 1))

    def _erased(self, before: Event, after: Event) -> None:
        """Where a value was erased from an event: tokens in its place in what was recorded; else it is nowhere."""
        if not (isinstance(before, IdentifyEvent) and isinstance(after, IdentifyEvent)):
            return
        if before.others != after.others:
            for identifier in set(before.others) - set(after.others):
                assert identifier.value not in repr(self.dumped).lower()
            assert len(before.others) == len(after.others)
            assert all(erasure.is_token(identifier.value) for identifier in set(after.others) - set(before.others))
            self.recorded = {}  # tokens stand elsewhere in the order
        for value, token in ((before.email, after.email), (before.phone_number, after.phone_number)):
            if value == token:
                continue
            assert value is not None
            assert erasure.is_token(token), "nothing else changes in the log"
            assert value not in repr(self.dumped).lower()
            self.recorded = {
                seq: text.replace(f'"{value}"', f'"{token}"') if seq >= before.seq else text
                for seq, text in self.recorded.items()
            }

    def _check_bans(self, rows: Tables, fresh: list[int]) -> None:
        """Whom bans keep apart is whom decisions keep apart; what is said to be withheld by one, is."""
        for event in rows["event"]:
            if event["seq"] not in fresh:
                continue
            known = [e for e in rows["event"] if e["seq"] <= event["seq"]]
            folded = fold(known)
            customers, owners = customers_of(folded), owners_of(folded)
            found = apart(folded, customers)
            counted = {e["seq"] for e in known} - undone(known)
            self.separations.happened(event, self.customers, customers, counted, found, owners)
            assert self.separations.twos() == found, event["seq"]
            self.customers = customers
        folded = fold(rows["event"])
        owners = owners_of(folded)
        for key, row in folded["withheld_pair"].items():
            pair = Identifier(*key[:2]), Identifier(*key[2:])
            two = frozenset(owners.get((end.kind, end.value), 0) for end in pair)
            by_a_ban = row["banned"] or two in self.separations.twos()
            assert bans.withholds(self.state, pair) == by_a_ban, "what a ban withholds, and only that, is said to be"

    def _check_ids(self, ids: range) -> None:
        """Every id that was ever given out leads to a cluster, or to when it came to its end."""
        service = self.world.service
        contacts = self.world.run(service.contacts(ids))
        clusters = self.world.run(service.clusters_of(ids))
        for contact, cluster in zip(contacts, clusters, strict=True):
            assert contact is not None
            if cluster is not None:
                assert contact.id in self.state.members[cluster.primary.id]
                continue
            with pytest.raises(Gone) as gone:
                self.world.run(service.cluster(contact.id))
            assert gone.value.at == (contact.erased_at or contact.undone_at or contact.deleted_at)
            how = "erased" if contact.erased_at else "undone" if contact.undone_at else "deleted"
            assert gone.value.how == how

    # -- who is meant

    @property
    def live(self) -> set[int]:
        return {contact_id for members in self.state.members.values() for contact_id in members}

    @property
    def dead(self) -> list[int]:
        return [row[0] for row in self.dumped["contact"] if row[0] not in self.live]

    @property
    def large(self) -> list[set[int]]:
        return [members for members in self.state.members.values() if len(members) > 1]

    @property
    def told(self) -> list[int]:
        """The events that linked something."""
        return [
            event.seq
            for event in self.events
            if (isinstance(event, IdentifyEvent) and event.pairs) or event.kind is EventKind.MERGE_CLUSTERS
        ]

    def contact(self, n: int) -> int:
        """Mostly a live one; sometimes one that is deleted, or that there never was."""
        ids = [row[0] for row in self.dumped["contact"]]
        live = sorted(self.live)
        if n < 8 and live:
            return int(live[n % len(live)])
        return int(ids[n % len(ids)]) if n < 9 else ids[-1] + 1

    def event(self, n: int) -> int:
        return self.events[-1 - n % len(self.events)].seq


def customers_of(folded: dict[str, Rows]) -> Customers:
    """The contacts that are live, each with those of its cluster; those that can be restored, each by itself."""
    clusters: dict[int, set[int]] = {}
    alone: dict[int, frozenset[int]] = {}
    for row in folded["contact"].values():
        if row["deleted_at"] is None:
            clusters.setdefault(row["linked_id"] or row["id"], set()).add(row["id"])
        elif row["erased_at"] is None and row["undone_at"] is None:
            alone[row["id"]] = frozenset((row["id"],))
    return alone | {contact_id: frozenset(members) for members in clusters.values() for contact_id in members}


def owners_of(folded: dict[str, Rows]) -> dict[tuple[str, str], int]:
    """Who claims what."""
    return {key: row["contact_id"] for key, row in folded["identifier"].items()}


def apart(folded: dict[str, Rows], customers: Customers) -> set[Two]:
    """Any two contacts between whose customers there is a ban."""
    bans = [(customers[row["contact_id"]], customers[row["other_id"]]) for row in folded["ban"].values()]
    return {frozenset((one, other)) for here, there in bans for one in here for other in there}


def comparable(result: VerbResult, ids: Mapping[int, int]) -> Any:
    """What a result changed, but for its time and random tokens; with the ids that its new contacts got."""
    at = msgspec.to_builtins(result.event.at)

    def without(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: without(value) for name, value in part.items()}
        if isinstance(part, list | tuple):
            parts = [without(value) for value in part]
            return parts if not any(map(erasure.is_token, texts(part))) else sorted(parts, key=orjson.dumps)
        if erasure.is_token(part if isinstance(part, str) else None):
            return "erased"
        return "now" if part == at else part

    return without(msgspec.to_builtins(result.changes.renumbered(ids)))


def texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, list | tuple):
        for value in part:
            yield from texts(value)


@contextmanager
def world_on(databases: Databases, name: str, kinds: Kinds) -> Iterator[World]:
    with asyncio.Runner() as runner:
        world = World(runner.run(databases.get(name)), runner, kinds)
        try:
            yield world
        finally:
            runner.run(world.close())


@pytest.mark.deep
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kinds", KINDS)
def test_whatever_requests_and_stewards_do_the_tables_are_what_the_log_says(
    name: str, kinds: str, databases: Databases
) -> None:
    is_plain = KINDS[kinds] is NO_KINDS_DECLARED
    examples = int(os.environ.get("STEWARD_EXAMPLES", (EXAMPLES if is_plain else FEW)[name]))
    with world_on(databases, name, KINDS[kinds]) as world:
        run_state_machine_as_test(
            type("Machine", (Machine,), {"world": world}),
            settings=settings(
                max_examples=examples,
                derandomize=not is_plain,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
