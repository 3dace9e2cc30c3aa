"""Contacts and clusters: twins of the domain's, joined by `from_domain`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID, UNSET

from identity_graphql.api.graphql.connections import (
    DEFAULT_PAGE,
    After,
    Connection,
    First,
    not_of_this_list,
    page_size,
    position_of,
)
from identity_graphql.api.graphql.context import Info, Source, history_of
from identity_graphql.api.graphql.history import Ban, Bridge, Event, Evidence, PairStanding, WithheldBy, page_of
from identity_graphql.api.graphql.identifiers import Identifier
from identity_graphql.api.graphql.scalars import given, id_of, seq_of
from identity_graphql.domain import contacts as domain
from identity_graphql.domain import state
from identity_graphql.domain.history import ClusterHistory
from identity_graphql.domain.identifiers import Identifier as Carried
from identity_graphql.domain.joining import is_kept_back_by_limit
from identity_graphql.errors import InvalidInput, Problem


@strawberry.enum(description="The place of a contact in its cluster.")
class LinkPrecedence(Enum):
    PRIMARY = strawberry.enum_value("PRIMARY", description="The oldest contact of the cluster.")
    SECONDARY = strawberry.enum_value("SECONDARY", description="Any other; linked to the primary.")


Kind = Annotated[str | None, strawberry.argument(description="Of this kind alone, such as `email`; else all.")]


@strawberry.type(description="One stored record: what one request brought of a customer.")
class Contact:
    carried: strawberry.Private[tuple[Carried, ...]]
    number: strawberry.Private[int]
    home: strawberry.Private[domain.Cluster | None]
    linked_to: strawberry.Private[int | None]
    source: strawberry.Private[Source]
    id: ID = strawberry.field(description="Never changes, and is never given out again.")
    email: str | None = strawberry.field(description="Its first email, as it is compared: trimmed, in lower case.")
    phone_number: str | None = strawberry.field(
        description="Its first phone number, as it is compared: digits, perhaps with a + in front."
    )
    linked_id: ID | None = strawberry.field(description="A secondary's primary; null for a primary.")
    link_precedence: LinkPrecedence = strawberry.field(description="Whether it is its cluster's primary.")
    created_at: datetime = strawberry.field(description="Decides who is the oldest; ties go to the smaller id.")
    updated_at: datetime = strawberry.field(description="Changes only when this record's own link or deletion changes.")
    deleted_at: datetime | None = strawberry.field(description="Null for a live contact.")
    undone_at: datetime | None = strawberry.field(description="When what had made it was undone; else null.")
    erased_at: datetime | None = strawberry.field(description="When all its values were erased; else null.")
    redacted: bool = strawberry.field(description="Whether a value that it had at this time was erased since.")

    @classmethod
    def from_domain(cls, contact: domain.Contact, home: domain.Cluster | None = None, source: Source = None) -> Contact:
        """With ``home``, the cluster it was read with, its links cost no further look-up."""
        return cls(
            carried=contact.carried,
            number=contact.id,
            home=home,
            linked_to=contact.linked_id,
            source=source,
            id=id_of(contact.id),
            email=contact.email,
            phone_number=contact.phone_number,
            linked_id=None if contact.linked_id is None else id_of(contact.linked_id),
            link_precedence=LinkPrecedence[contact.link_precedence.name],
            created_at=contact.created_at,
            updated_at=contact.updated_at,
            deleted_at=contact.deleted_at,
            undone_at=contact.undone_at,
            erased_at=contact.erased_at,
            redacted=isinstance(source, ClusterHistory) and source.is_redacted(contact.id),
        )

    @strawberry.field(description="All that it carries: the email, the phone number, and then others by kind.")
    def identifiers(self, kind: Kind = UNSET) -> list[Identifier]:
        return _of_kind(self.carried, given(kind))

    @strawberry.field(description="The primary that a secondary is linked to; null for a primary.")
    async def linked(self, info: Info) -> Contact | None:
        if self.linked_to is None:
            return None
        if self.home is not None:
            return Contact.from_domain(self.home.primary, self.home, self.source)
        if self.source is None:
            found = await info.context.contacts.load(self.linked_to)
        else:
            found = (await history_of(info.context, self.source, self.linked_to)).contact(self.linked_to)
        return Contact.from_domain(found, None, self.source) if found else None

    @strawberry.field(description="The customer it belongs to; null for a deleted contact.")
    async def cluster(self, info: Info) -> Cluster | None:
        if self.deleted_at is not None:
            return None
        if self.home is not None:
            return Cluster.from_domain(self.home, self.source)
        if self.source is None:
            found = await info.context.clusters.load(self.number)
            return Cluster.from_domain(found) if found else None
        history = await history_of(info.context, self.source, self.number)
        home = history.primary_of(self.number)
        return None if home is None else Cluster.from_domain(history.cluster(home), self.source)

    @strawberry.field(description="What happened to it: how it came, moved, went and came back.")
    async def history(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Event]:
        history = await history_of(info.context, self.source, self.number)
        found = (await info.context.history.histories(history)).contacts.get(self.number, ())
        return page_of(found, history, first=first, after=given(after))


@strawberry.type(
    description="All live contacts of one customer. Lists begin with the primary's values, then go by seniority."
)
class Cluster:
    entity: strawberry.Private[domain.Cluster]
    source: strawberry.Private[Source]
    id: ID = strawberry.field(description="The primary's id.")
    primary_contact_id: ID = strawberry.field(description="The primary's id, by the name that REST has for it.")
    size: int = strawberry.field(description="How many contacts it has.")
    version: int = strawberry.field(description="Goes up by one with every event of this cluster; starts at 1.")
    changed_at: datetime = strawberry.field(description="When its last event happened.")

    @classmethod
    def from_domain(cls, cluster: domain.Cluster, source: Source = None) -> Cluster:
        primary_id = id_of(cluster.primary.id)
        return cls(
            entity=cluster,
            source=source,
            id=primary_id,
            primary_contact_id=primary_id,
            size=cluster.size,
            version=cluster.version,
            changed_at=cluster.changed_at,
        )

    @strawberry.field(description="Whether a value that it had at this time was erased since.")
    def redacted(self) -> bool:
        history, contacts = self.source, self.entity.contacts
        return isinstance(history, ClusterHistory) and any(history.is_redacted(contact.id) for contact in contacts)

    @strawberry.field(description="Its oldest contact.")
    def primary(self) -> Contact:
        return self._contact(self.entity.primary)

    @strawberry.field(description="All its other contacts, by seniority. `contacts` gives them page by page.")
    def secondaries(self, info: Info) -> list[Contact]:
        info.context.charge(self.size)
        return [self._contact(contact) for contact in self.entity.secondaries]

    @strawberry.field(description="Its emails, without repeats; the primary's comes first.")
    def emails(self, info: Info) -> list[str]:
        info.context.charge(self.size)
        return list(self.entity.emails)

    @strawberry.field(description="Its phone numbers, without repeats; the primary's comes first.")
    def phone_numbers(self, info: Info) -> list[str]:
        info.context.charge(self.size)
        return list(self.entity.phone_numbers)

    @strawberry.field(description="Its identifiers of all kinds, without repeats; the primary's come first.")
    def identifiers(self, info: Info, kind: Kind = UNSET) -> list[Identifier]:
        info.context.charge(self.size)
        return _of_kind(self.entity.identifiers, given(kind))

    @strawberry.field(description="The ids of its secondaries, by seniority.")
    def secondary_contact_ids(self, info: Info) -> list[ID]:
        info.context.charge(self.size)
        return [id_of(number) for number in self.entity.secondary_contact_ids]

    @strawberry.field(description="Its contacts, the primary first, then by seniority.")
    def contacts(self, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Contact]:
        size, cursor = page_size(first), given(after)
        last, start = position_of(cursor), 0
        members = self.entity.contacts
        if cursor is not None:
            start = next((n for n, member in enumerate(members, 1) if member.id == last), 0)
            if start == 0:
                raise not_of_this_list()
        page = members[start : start + size + 1]
        nodes = [self._contact(contact) for contact in page]
        return Connection.of(nodes, [contact.id for contact in page], first=size, after=cursor)

    @strawberry.field(description="What happened to it, in order; that of the clusters which were merged into it, too.")
    async def history(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Event]:
        history, home = await self._history(info)
        found = (await info.context.history.histories(history)).clusters.get(home, ())
        return page_of(found, history, first=first, after=given(after))

    @strawberry.field(description="What holds it together, as a graph to be drawn.")
    async def evidence(self, info: Info) -> Evidence:
        graph = await info.context.history.evidence(*await self._history(info))
        info.context.charge(len(graph.nodes) + len(graph.edges))
        return Evidence.from_domain(graph)

    @strawberry.field(
        description="The single pieces of evidence without which it would fall apart; those first that would leave the"
        " most equal parts."
    )
    async def bridges(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Bridge]:
        history, home = await self._history(info)
        size, cursor = page_size(first), given(after)
        last = position_of(cursor)
        page = (await info.context.history.bridges(history, home))[last : last + size + 1]
        nodes = [Bridge.from_domain(bridge, history) for bridge in page]
        return Connection.of(nodes, range(last + 1, last + 1 + len(page)), first=size, after=cursor)

    @strawberry.field(description="The pairs kept back from it, by a ban or a limit, or until somebody decides.")
    async def withheld(self, info: Info) -> list[WithheldPair]:
        history, home = await self._history(info)
        found = history.withheld(home)
        info.context.charge(len(found))
        return [WithheldPair.from_domain(pair, withheld, self.source) for pair, withheld in found]

    @strawberry.field(description="The bans of its contacts.")
    async def bans(self, info: Info) -> list[Ban]:
        history, home = await self._history(info)
        found = history.bans(home)
        info.context.charge(len(found))
        return [Ban.from_domain(ban, history) for ban in found]

    def _contact(self, contact: domain.Contact) -> Contact:
        return Contact.from_domain(contact, self.entity, self.source)

    async def _history(self, info: Info) -> tuple[ClusterHistory, int]:
        """The log that led to it, and its primary there: perhaps another one than a moment ago."""
        primary_id = self.entity.primary.id
        history = await history_of(info.context, self.source, primary_id)
        home = history.primary_of(primary_id)
        assert home is not None, "its primary is in the log"
        return history, home


def _of_kind(identifiers: Iterable[Carried], kind: str | None) -> list[Identifier]:
    return [Identifier.from_domain(identifier) for identifier in identifiers if kind in (None, identifier.kind)]


@strawberry.enum(description="What kept a pair back when it came.")
class WithheldReason(Enum):
    BAN = strawberry.enum_value("BAN", description="A ban.")
    LIMIT = strawberry.enum_value("LIMIT", description="The limit of a kind.")


def withheld_filter(reason: WithheldReason | None, limit_kind: str | None) -> state.WithheldFilter:
    """Which pairs are asked for. Raises InvalidInput for those that a ban kept back by the limit of a kind."""
    if limit_kind is not None and reason is WithheldReason.BAN:
        raise InvalidInput(Problem("limitKind", "limitKind goes with the reason LIMIT alone."))
    return state.WithheldFilter(None if reason is None else reason is WithheldReason.LIMIT, limit_kind)


@strawberry.type(description="Two identifiers that were seen together, but are kept apart.")
class WithheldPair:
    seq: strawberry.Private[int]
    pair: strawberry.Private[state.Pair]
    source: strawberry.Private[Source]
    identifiers: list[Identifier] = strawberry.field(description="The two, in the order of their kinds.")
    standing: PairStanding = strawberry.field(description="WITHHELD, or BANNED if the ban is on the pair itself.")
    reason: WithheldReason = strawberry.field(description="What kept it back when it came.")
    limit_kind: str | None = strawberry.field(description="The kind whose limit did so; null if a ban did.")
    event: ID = strawberry.field(description="The `seq` of the event that kept it back.")

    @classmethod
    def from_domain(cls, pair: state.Pair, withheld: state.Withheld, source: Source = None) -> WithheldPair:
        return cls(
            pair=pair,
            source=source,
            identifiers=[Identifier.from_domain(identifier) for identifier in pair],
            standing=PairStanding.BANNED if withheld.banned else PairStanding.WITHHELD,
            reason=WithheldReason.BAN if withheld.limit_kind is None else WithheldReason.LIMIT,
            limit_kind=withheld.limit_kind,
            seq=withheld.seq,
            event=seq_of(withheld.seq) or ID("0"),
        )

    @strawberry.field(description="When that was: its age in the queue. Null for what a dry run would write.")
    async def at(self, info: Info) -> datetime | None:
        event = await info.context.events.load(self.seq)
        return None if event is None else event.at

    @strawberry.field(
        description="What keeps it back now: a ban, a limit as it is set now, or nothing if that was lifted since."
    )
    async def withheld_by(self, info: Info) -> WithheldBy:
        if self.standing is PairStanding.BANNED:
            return WithheldBy.BAN
        holders = await self._holders(info)
        one, other = (None if holder is None else holder.primary.id for holder in holders)
        if one is not None and one == other:
            return WithheldBy.NOTHING
        if self.source is not None:
            banned = (await history_of(info.context, self.source, 0)).withholds(self.pair)
        else:
            two = None if one is None or other is None else state.bond(one, other)
            banned = two is not None and await info.context.kept_apart.load(two)
        if banned:
            return WithheldBy.BAN
        if self.limit_kind is None:
            return WithheldBy.NOTHING
        counts = [len(holder.values(self.limit_kind)) for holder in holders if holder is not None]
        new = sum(h is None and i.kind == self.limit_kind for h, i in zip(holders, self.pair, strict=True))
        kinds = info.context.service.normalisation.kinds
        still = is_kept_back_by_limit(kinds, self.limit_kind, counts, new=new)
        return WithheldBy.LIMIT if still else WithheldBy.NOTHING

    async def _holders(self, info: Info) -> list[domain.Cluster | None]:
        if self.source is None:
            return await info.context.holders.load_many(self.pair)
        history = await history_of(info.context, self.source, 0)
        homes = (history.home(identifier) for identifier in self.pair)
        return [None if home is None else history.cluster(home) for home in homes]

    @strawberry.field(description="The customers who have them, in the same order; null where nobody has.")
    async def holders(self, info: Info) -> list[Cluster | None]:
        found = await self._holders(info)
        return [None if cluster is None else Cluster.from_domain(cluster, self.source) for cluster in found]
