"""A steward who looks before he acts: every verb as a dry run first, then with the versions that it told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.identifiers import Given, Identifier, Normalisation, pairs_of
from identity_graphql.domain.kinds import NO_KINDS_DECLARED, Kinds
from identity_graphql.domain.reconcile import Decision
from identity_graphql.domain.replay import replay
from identity_graphql.domain.state import Node
from identity_graphql.services.identify import IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.storage import Storage
from tests.support.databases import Database, check, tables_of
from tests.support.replayed import check_judged_again, check_replay, events_of, structure

Ask = Callable[[Command], Awaitable[VerbResult]]


class Steward:
    def __init__(
        self,
        storage: Storage,
        *,
        actor: str = "steward",
        reason: str = "because",
        timeout: float = 10,
        kinds: Kinds = NO_KINDS_DECLARED,
    ) -> None:
        normalisation = Normalisation(kinds=kinds)
        self.storage = storage
        self.service = IdentityService(storage, normalisation)
        self.steward = StewardService(storage, normalisation, timeout=timeout)
        self.actor = actor
        self.reason = reason

    async def identify(self, email: str | None = None, phone_number: str | int | None = None) -> Decision:
        return await self.service.identify(Given(email=email, phone_number=phone_number))

    async def say(self, *identifiers: Identifier, **more: Any) -> Decision:
        """One request with identifiers of any kind."""
        return await self.service.identify(Given(identifiers=[(one.kind, one.value) for one in identifiers], **more))

    async def accept(self, one: Identifier, other: Identifier) -> VerbResult:
        return await self.do(lambda command: self.steward.accept_withheld(pairs_of((one, other))[0], command))

    async def reject(self, one: Identifier, other: Identifier) -> VerbResult:
        return await self.do(lambda command: self.steward.reject_withheld(pairs_of((one, other))[0], command))

    async def requests(self, *said: tuple[str | None, str | None]) -> None:
        """Identified one after the other: the events 1, 2, 3 on an empty database, if each teaches something."""
        for email, phone_number in said:
            await self.identify(email, phone_number)

    async def state(self) -> dict[str, Any]:
        """All that there is of the first contacts, but versions and times of writing."""
        async with self.storage.log_session(range(1, 20), by_value=True) as session:
            return structure(replay(session.events))

    async def merge(self, one: int, other: int) -> VerbResult:
        return await self.do(lambda command: self.steward.merge_clusters(one, other, command))

    async def split(self, *ids: int, identifiers: Sequence[Identifier] = (), ban: bool = True) -> VerbResult:
        return await self.do(lambda command: self.steward.split_cluster(ids, command, identifiers=identifiers, ban=ban))

    async def undo(self, seq: int, *, then_ban: bool = False) -> VerbResult:
        return await self.do(lambda command: self.steward.undo(seq, command, then_ban=then_ban))

    async def ban(self, a: Node, b: Node) -> VerbResult:
        return await self.do(lambda command: self.steward.ban_link(a, b, command))

    async def unban(self, a: Node, b: Node, *, rejudge: bool = False) -> VerbResult:
        return await self.do(lambda command: self.steward.unban_link(a, b, command, rejudge=rejudge))

    async def delete(self, contact_id: int) -> VerbResult:
        return await self.do(lambda command: self.steward.delete_contact(contact_id, command))

    async def restore(self, contact_id: int) -> VerbResult:
        return await self.do(lambda command: self.steward.restore_contact(contact_id, command))

    async def erase_cluster(self, contact_id: int) -> VerbResult:
        return await self.do(lambda command: self.steward.erase_cluster(contact_id, command))

    async def erase(self, identifier: Identifier) -> VerbResult:
        return await self.do(lambda command: self.steward.erase_identifier(identifier, command))

    async def block(self, identifier: Identifier, *, retract: bool = False) -> VerbResult:
        return await self.do(lambda command: self.steward.block_identifier(identifier, command, retract=retract))

    async def unblock(self, identifier: Identifier) -> VerbResult:
        return await self.do(lambda command: self.steward.unblock_identifier(identifier, command))

    async def do(self, ask: Ask) -> VerbResult:
        foreseen = await ask(Command(self.actor, self.reason, dry_run=True))
        return await ask(self.command(foreseen))

    def command(self, foreseen: VerbResult) -> Command:
        """What to ask for after a dry run."""
        return Command(self.actor, self.reason, foreseen.expected_version, foreseen.expected_other_version)

    async def clusters(self) -> list[list[int]]:
        """The ids of all clusters, each with its primary first."""
        found = await self.service.page_of_clusters(after=0, limit=100)
        return [[contact.id for contact in cluster.contacts] for cluster in found]

    async def identifiers(self) -> list[set[str]]:
        """What each of all clusters is known by."""
        found = await self.service.page_of_clusters(after=0, limit=100)
        return [{identifier.value for identifier in cluster.identifiers} for cluster in found]

    async def cluster_of(self, contact_ids: Collection[int]) -> dict[int, int | None]:
        """The primaries of contacts; None for those that are gone."""
        ids = sorted(contact_ids)
        found = await self.service.clusters_of(ids)
        return {i: cluster.primary.id if cluster else None for i, cluster in zip(ids, found, strict=True)}

    async def close(self) -> None:
        await self.service.close()


@asynccontextmanager
async def working(database: Database, **words: Any) -> AsyncIterator[Steward]:
    """A steward on a database. Afterwards all must hold, and the log judged again must give the present."""
    storage = database.open()
    steward = Steward(storage, **words)
    yield steward
    await steward.close()
    dump = await database.dump(storage)
    rules = {norm: Kinds.parse(document) for norm, document in (await storage.rule_sets()).items()}
    await storage.close()
    rows, events = check(tables_of(dump)), events_of(dump)
    check_replay(replay(events), rows)
    check_judged_again(events, replay(events), rules)
