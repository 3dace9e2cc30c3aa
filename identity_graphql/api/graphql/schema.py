"""Queries and mutations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry import UNSET
from strawberry.schema.config import StrawberryConfig

from identity_graphql.api.graphql.connections import (
    DEFAULT_PAGE,
    After,
    Connection,
    First,
    key_of,
    page_size,
    position_of,
)
from identity_graphql.api.graphql.contacts import Cluster, Contact, WithheldPair, WithheldReason, withheld_filter
from identity_graphql.api.graphql.context import Info, Preview
from identity_graphql.api.graphql.finding import ClusterOrder, Statistics, SuspiciousCluster
from identity_graphql.api.graphql.history import Ban, Event, EventKind, Explanation, event_filter
from identity_graphql.api.graphql.identifiers import (
    IdentifierArgument,
    IdentifierInput,
    IdentifierKind,
    SubjectInput,
    given_pairs,
    identifiers_of,
    pair_of,
    subject_of,
)
from identity_graphql.api.graphql.identify import (
    Identifiers,
    IdentifyInput,
    IdentifyItem,
    IdentifyPayload,
    OccurredAt,
    Said,
)
from identity_graphql.api.graphql.scalars import (
    SCALARS,
    AnyContactId,
    AsOf,
    AsOfSeq,
    ContactId,
    EmailArgument,
    PhoneNumberArgument,
    given,
    moment_of,
    number_of,
)
from identity_graphql.api.graphql.stewardship import (
    Actor,
    BlockedIdentifier,
    DryRun,
    ExpectedOtherVersion,
    ExpectedVersion,
    Reason,
    StewardPayload,
    command,
)
from identity_graphql.domain.counts import LEAST
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.identifiers import Given
from identity_graphql.domain.reconcile import Decision
from identity_graphql.errors import IdentityError, InvalidInput, Problem
from identity_graphql.observability import note
from identity_graphql.services.stewardship import StewardService

BlockedArgument = Annotated[
    IdentifierInput,
    strawberry.argument(description="The identifier. `expectedVersion` is of the cluster that has it; 0 if none has."),
]
Kinds = Annotated[
    list[EventKind] | None, strawberry.argument(description="What was done: one of these. All kinds, if left out.")
]
LoggedActor = Annotated[
    str | None, strawberry.argument(description="Who did it, exactly as it is logged. Requests have no actor.")
]
QueueReason = Annotated[
    WithheldReason | None, strawberry.argument(description="What kept them back. Both, if left out.")
]
QueueKind = Annotated[str | None, strawberry.argument(description="The kind whose limit kept them back.")]
WithheldIdentifiers = Annotated[
    list[IdentifierInput], strawberry.argument(description="The two identifiers of the pair, in any order.")
]
Since = Annotated[datetime | None, strawberry.argument(description="At this moment or later.")]
Until = Annotated[datetime | None, strawberry.argument(description="Before this moment.")]
End = Annotated[SubjectInput, strawberry.argument(description="A contact or an identifier.")]
Items = Annotated[
    list[IdentifyInput],
    strawberry.argument(
        description="1 to 1,000 of them. Give them as a variable: a document may have 1,000 tokens (names, values and"
        " punctuation marks), which has room for about 100 items."
    ),
]


@strawberry.type(description="What is known. Queries never write.")
class Query:
    @strawberry.field(description="One contact, a deleted one too; null if no such id was ever given out.")
    async def contact(
        self, info: Info, id: ContactId, as_of: AsOf = UNSET, as_of_seq: AsOfSeq = UNSET
    ) -> Contact | None:
        contact_id, moment = number_of(id), moment_of(as_of, as_of_seq)
        if moment is None:
            found = await info.context.contacts.load(contact_id)
            return Contact.from_domain(found) if found else None
        history = await info.context.history.of_contacts([contact_id], moment)
        info.context.charge(len(history.events))
        seen = history.contact(contact_id)
        return Contact.from_domain(seen, None, history) if seen else None

    @strawberry.field(
        description="The customer who has a contact or an identifier: exactly one of the four. Null if nobody has it;"
        " the error GONE if the contact was deleted."
    )
    async def cluster(
        self,
        info: Info,
        id: AnyContactId = UNSET,
        email: EmailArgument = UNSET,
        phone_number: PhoneNumberArgument = UNSET,
        identifier: IdentifierArgument = UNSET,
        as_of: AsOf = UNSET,
        as_of_seq: AsOfSeq = UNSET,
    ) -> Cluster | None:
        service = info.context.service
        subject = subject_of(id, email, phone_number, identifier, service.normalisation)
        moment = moment_of(as_of, as_of_seq)
        if moment is None:
            found = await service.cluster(subject)
            return Cluster.from_domain(found) if found else None
        history, home = await info.context.history.of(subject, moment)
        info.context.charge(len(history.events))
        return None if home is None else Cluster.from_domain(history.cluster(home), history)

    @strawberry.field(description="The kinds of identifiers that requests may bring, in order of priority.")
    def identifier_kinds(self, info: Info) -> list[IdentifierKind]:
        return [IdentifierKind.from_domain(kind) for kind in info.context.service.normalisation.kinds.kinds]

    @strawberry.field(description="All live contacts, by id.")
    async def contacts(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Contact]:
        size, cursor = page_size(first), given(after)
        found = await info.context.service.page_of_contacts(after=position_of(cursor), limit=size + 1)
        nodes = [Contact.from_domain(contact) for contact in found]
        return Connection.of(nodes, [contact.id for contact in found], first=size, after=cursor)

    @strawberry.field(description="All clusters, by the id of their primary; or the largest, or those changed last.")
    async def clusters(
        self,
        info: Info,
        first: First = DEFAULT_PAGE,
        after: After = UNSET,
        as_of: AsOf = UNSET,
        as_of_seq: AsOfSeq = UNSET,
        order_by: Annotated[ClusterOrder, strawberry.argument(description="In which order.")] = ClusterOrder.ID,
        min_size: Annotated[
            int | None,
            strawberry.argument(description="With SIZE_DESC alone: only those with so many contacts, 10 or more."),
        ] = UNSET,
    ) -> Connection[Cluster]:
        size, cursor, moment = page_size(first), given(after), moment_of(as_of, as_of_seq)
        least = given(min_size)
        if least is not None and order_by is not ClusterOrder.SIZE_DESC:
            raise InvalidInput(Problem("minSize", "minSize goes with orderBy: SIZE_DESC alone"))
        if moment is not None and order_by is not ClusterOrder.ID:
            raise InvalidInput(Problem("orderBy", "The clusters of an earlier time are listed by id alone"))
        if order_by is ClusterOrder.SIZE_DESC:
            count, primary_id = key_of(cursor, 2)
            largest = await info.context.finding.largest(
                least_size=LEAST if least is None else least, after=(count, primary_id), limit=size + 1
            )
            nodes = [Cluster.from_domain(cluster) for cluster in largest]
            keys = [(cluster.size, cluster.primary.id) for cluster in largest]
            return Connection.of(nodes, keys, first=size, after=cursor)
        if order_by is ClusterOrder.CHANGED_AT_DESC:
            return await _last_changed(info, size, cursor)
        last = position_of(cursor)
        if moment is None:
            found = await info.context.service.page_of_clusters(after=last, limit=size + 1)
            nodes = [Cluster.from_domain(cluster) for cluster in found]
        else:
            past = await info.context.history.page_of_clusters(
                after=last, limit=size + 1, moment=moment, charge=info.context.charge
            )
            nodes = [Cluster.from_domain(history.cluster(home), history) for history, home in past]
        return Connection.of(nodes, [node.entity.primary.id for node in nodes], first=size, after=cursor)

    @strawberry.field(
        description="Customers who have more of something than they should: than the limit of a kind, or than the"
        " setting SUSPICIOUS_SIZE has contacts; the largest first, one entry for everything they have too much of."
    )
    async def suspicious_clusters(
        self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET
    ) -> Connection[SuspiciousCluster]:
        size, cursor = page_size(first), given(after)
        place, count, primary_id = key_of(cursor, 3)
        found = await info.context.finding.suspicious(after=(place, count, primary_id), limit=size + 1)
        nodes = [SuspiciousCluster.from_domain(one) for one in found]
        return Connection.of(nodes, [one.place for one in found], first=size, after=cursor)

    @strawberry.field(description="How much there is.")
    async def statistics(self, info: Info) -> Statistics:
        return Statistics.from_domain(await info.context.finding.statistics())

    @strawberry.field(
        description="Why two contacts or identifiers are one customer: the shortest chain of evidence between them; or"
        " what keeps them apart."
    )
    async def explain(
        self,
        info: Info,
        from_: Annotated[SubjectInput, strawberry.argument(name="from", description="One end.")],
        to: Annotated[SubjectInput, strawberry.argument(description="The other end.")],
        as_of: AsOf = UNSET,
        as_of_seq: AsOfSeq = UNSET,
    ) -> Explanation | None:
        rules, moment = info.context.service.normalisation, moment_of(as_of, as_of_seq)
        start, goal = from_.subject("from", rules), to.subject("to", rules)
        explained = await info.context.history.explain(start, goal, moment)
        info.context.charge(len(explained.history.events))
        return Explanation.from_domain(explained)

    @strawberry.field(description="One entry of the log; null if there is none of this number.")
    async def event(
        self, info: Info, seq: Annotated[strawberry.ID, strawberry.argument(description="Its number.")]
    ) -> Event | None:
        found = await info.context.history.event(number_of(seq, "seq"))
        return Event.from_domain(*found) if found else None

    @strawberry.field(
        description="The log, by the numbers of its events: all of them, or those that meet every condition that is"
        " given."
    )
    async def events(
        self,
        info: Info,
        first: First = DEFAULT_PAGE,
        after: After = UNSET,
        kinds: Kinds = UNSET,
        actor: LoggedActor = UNSET,
        since: Since = UNSET,
        until: Until = UNSET,
    ) -> Connection[Event]:
        size, cursor = page_size(first), given(after)
        found = await info.context.history.page_of_events(
            event_filter(given(kinds), given(actor), given(since), given(until)),
            after=position_of(cursor),
            limit=size + 1,
        )
        nodes = [Event.from_domain(event, undone_by=undo) for event, undo in found]
        return Connection.of(nodes, [logged.event.seq for logged in found], first=size, after=cursor)

    @strawberry.field(
        description="The review queue: what bans and limits kept back and nobody decided on since, the oldest first."
        " `acceptWithheld` and `rejectWithheld` decide."
    )
    async def withheld(
        self,
        info: Info,
        first: First = DEFAULT_PAGE,
        after: After = UNSET,
        reason: QueueReason = UNSET,
        limit_kind: QueueKind = UNSET,
    ) -> Connection[WithheldPair]:
        size, cursor = page_size(first), given(after)
        seq, behind = last = key_of(cursor, 2)
        wanted = withheld_filter(given(reason), given(limit_kind))
        found = await info.context.history.page_of_withheld(wanted, after=(seq, behind), limit=size + 1)
        nodes = [WithheldPair.from_domain(pair, withheld) for pair, withheld in found]
        keys: list[tuple[int, ...]] = []
        for _, withheld in found:
            before = keys[-1] if keys else last
            keys.append((withheld.seq, before[1] + 1 if before[0] == withheld.seq else 1))
        return Connection.of(nodes, keys, first=size, after=cursor)

    @strawberry.field(description="How long the review queue is; at most 10,000 are counted.")
    async def withheld_count(self, info: Info, reason: QueueReason = UNSET, limit_kind: QueueKind = UNSET) -> int:
        return await info.context.history.count_withheld(withheld_filter(given(reason), given(limit_kind)))

    @strawberry.field(description="All bans, by the event that decided so.")
    async def bans(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Ban]:
        size, cursor = page_size(first), given(after)
        seq, contact_id, other_id = key_of(cursor, 3)
        found = await info.context.history.page_of_bans(after=(contact_id, other_id, seq), limit=size + 1)
        nodes = [Ban.from_domain(ban) for ban in found]
        return Connection.of(nodes, [(seq, *contacts) for *contacts, seq in found], first=size, after=cursor)

    @strawberry.field(description="All identifiers that are blocked, by the event that decided so.")
    async def blocked_identifiers(
        self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET
    ) -> Connection[BlockedIdentifier]:
        size, cursor = page_size(first), given(after)
        found = await info.context.history.page_of_blocked(after=position_of(cursor), limit=size + 1)
        nodes = [BlockedIdentifier.from_domain(identifier, seq) for identifier, seq in found]
        return Connection.of(nodes, [seq for _, seq in found], first=size, after=cursor)


async def _last_changed(info: Info, size: int, cursor: str | None) -> Connection[Cluster]:
    """One page of the clusters by their last events, going back. What was listed before and changed since, comes not
    again."""
    before, behind = key_of(cursor, 2)
    upto = before + 1 if behind else before
    found = await info.context.finding.last_changed(before=upto, limit=size + 1 + behind)
    found = [one for place, one in enumerate(found) if one[0] != before or place >= behind]
    keys: list[tuple[int, ...]] = []
    for seq, _ in found:
        last = keys[-1] if keys else (before, behind)
        keys.append((seq, last[1] + 1 if last[0] == seq else 1))
    return Connection.of([Cluster.from_domain(cluster) for _, cluster in found], keys, first=size, after=cursor)


def about_one_contact(verb: Callable[[StewardService, int, Command], Awaitable[VerbResult]], description: str) -> Any:
    """Returns the mutation that does a verb which asks for no more than a contact."""

    async def resolve(
        info: Info,
        id: ContactId,
        actor: Actor,
        reason: Reason,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        wanted = command(actor, reason, expected_version, dry_run)
        return StewardPayload.from_domain(await verb(info.context.steward, number_of(id), wanted))

    return strawberry.mutation(resolve, description=description)


@strawberry.type(
    description="What can be told, and what a data steward can do. `identify` and `identifyMany` are safe to repeat; a"
    " steward's verbs are each one transaction, with an actor, a reason and the version that was seen: with another one"
    " they answer CONFLICT (look again), and where a ban or evidence forbids what was asked, REFUSED."
)
class Mutation:
    @strawberry.mutation(
        description="Link 1 to 16 identifiers, such as an email and a phone number, to their customer, and answer with"
        " all that is known of that customer. What is known already changes nothing."
    )
    async def identify(
        self,
        info: Info,
        email: EmailArgument = UNSET,
        phone_number: PhoneNumberArgument = UNSET,
        identifiers: Identifiers = UNSET,
        source: Said = UNSET,
        occurred_at: OccurredAt = UNSET,
        dry_run: DryRun = False,
    ) -> IdentifyPayload:
        identify = info.context.service.preview if dry_run else info.context.service.identify
        pairs = given_pairs(identifiers)
        decision = await identify(Given(given(email), given(phone_number), pairs, given(source), given(occurred_at)))
        return IdentifyPayload.from_domain(decision, Preview([decision]) if dry_run else None)

    @strawberry.mutation(
        description="`identify` for many, in order, in one batch; as many answers in the same order. An item that"
        " fails does so alone. In a dry run, each sees what those before it would have done."
    )
    async def identify_many(self, info: Info, items: Items, dry_run: DryRun = False) -> list[IdentifyItem]:
        results = await info.context.service.identify_many([item.given for item in items], dry_run=dry_run)
        preview = Preview([result for result in results if isinstance(result, Decision)]) if dry_run else None
        for result in results:
            if isinstance(result, IdentityError):
                note(result)
        return [IdentifyItem.from_domain(result, preview) for result in results]

    @strawberry.mutation(description="Make one cluster of the clusters of two contacts, whatever the evidence says.")
    async def merge_clusters(
        self,
        info: Info,
        id: ContactId,
        other_id: ContactId,
        actor: Actor,
        reason: Reason,
        expected_version: ExpectedVersion = UNSET,
        expected_other_version: ExpectedOtherVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        wanted = command(actor, reason, expected_version, dry_run, expected_other_version)
        result = await info.context.steward.merge_clusters(number_of(id), number_of(other_id, "otherId"), wanted)
        return StewardPayload.from_domain(result)

    @strawberry.mutation(
        description="Take contacts out of their cluster: they become a cluster of their own. What the two sides have in"
        " common is no evidence any more, and they are banned from each other unless `ban` is false. What their cluster"
        " was banned from, both stay banned from."
    )
    async def split_cluster(
        self,
        info: Info,
        contact_ids: Annotated[list[strawberry.ID], strawberry.argument(description="The contacts to take out.")],
        actor: Actor,
        reason: Reason,
        identifiers: Annotated[
            list[IdentifierInput] | None,
            strawberry.argument(description="Identifiers that are to stand on the other side than they do."),
        ] = UNSET,
        ban: Annotated[bool, strawberry.argument(description="Whether to ban the two sides from each other.")] = True,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        rules = info.context.service.normalisation
        result = await info.context.steward.split_cluster(
            [number_of(contact_id, "contactIds") for contact_id in contact_ids],
            command(actor, reason, expected_version, dry_run),
            identifiers=[one.identifier("identifiers", rules) for one in given(identifiers) or ()],
            ban=ban,
        )
        return StewardPayload.from_domain(result)

    @strawberry.mutation(
        description="Take one event back: what is left is the state as if it had never come; all that came later is"
        " kept, and judged again. A steward's own verbs can be undone as well, erasures cannot."
    )
    async def undo(
        self,
        info: Info,
        event: Annotated[strawberry.ID, strawberry.argument(description="The `seq` of the event.")],
        actor: Actor,
        reason: Reason,
        then_ban: Annotated[
            bool,
            strawberry.argument(
                description="Ban what it linked, so that the next such request does not win. Where other evidence still"
                " makes one cluster of it, nothing is done (REFUSED)."
            ),
        ] = False,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        wanted = command(actor, reason, expected_version, dry_run)
        result = await info.context.steward.undo(number_of(event, "event"), wanted, then_ban=then_ban)
        return StewardPayload.from_domain(result)

    @strawberry.mutation(
        description="Never link these two customers again. A request that bridges them later is linked to one side,"
        " answered with a warning, and kept as withheld. Where one of them is divided, each part keeps the ban."
    )
    async def ban_link(
        self,
        info: Info,
        a: End,
        b: End,
        actor: Actor,
        reason: Reason,
        expected_version: ExpectedVersion = UNSET,
        expected_other_version: ExpectedOtherVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        rules = info.context.service.normalisation
        wanted = command(actor, reason, expected_version, dry_run, expected_other_version)
        result = await info.context.steward.ban_link(a.subject("a", rules), b.subject("b", rules), wanted)
        return StewardPayload.from_domain(result)

    @strawberry.mutation(
        description="Lift all bans between two customers, whatever decided so: `changes` tells which. `waiting` tells"
        " how many pairs they have kept back. To lift a ban for all customers that it separates, undo it."
    )
    async def unban_link(
        self,
        info: Info,
        a: End,
        b: End,
        actor: Actor,
        reason: Reason,
        rejudge: Annotated[
            bool, strawberry.argument(description="Whether what it kept back counts as evidence now.")
        ] = False,
        expected_version: ExpectedVersion = UNSET,
        expected_other_version: ExpectedOtherVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        rules = info.context.service.normalisation
        wanted = command(actor, reason, expected_version, dry_run, expected_other_version)
        result = await info.context.steward.unban_link(
            a.subject("a", rules), b.subject("b", rules), wanted, rejudge=rejudge
        )
        return StewardPayload.from_domain(result)

    @strawberry.mutation(
        description="Link what is withheld, in spite of the limit, or of the ban, lifted for the two customers."
        " What nobody has yet comes to the other's customer."
    )
    async def accept_withheld(
        self,
        info: Info,
        identifiers: WithheldIdentifiers,
        actor: Actor,
        reason: Reason,
        expected_version: ExpectedVersion = UNSET,
        expected_other_version: ExpectedOtherVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        wanted = command(actor, reason, expected_version, dry_run, expected_other_version)
        pair = pair_of(identifiers, info.context.service.normalisation)
        return StewardPayload.from_domain(await info.context.steward.accept_withheld(pair, wanted))

    @strawberry.mutation(
        description="Ban what is withheld for good: the pair, and its two customers from each other. All that waits"
        " between the two leaves the queue."
    )
    async def reject_withheld(
        self,
        info: Info,
        identifiers: WithheldIdentifiers,
        actor: Actor,
        reason: Reason,
        expected_version: ExpectedVersion = UNSET,
        expected_other_version: ExpectedOtherVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        wanted = command(actor, reason, expected_version, dry_run, expected_other_version)
        pair = pair_of(identifiers, info.context.service.normalisation)
        return StewardPayload.from_domain(await info.context.steward.reject_withheld(pair, wanted))

    delete_contact = about_one_contact(
        StewardService.delete_contact,
        "Delete a contact, and the evidence that it brought. Its cluster falls apart if it must; the part with the"
        " oldest contact keeps its primary.",
    )
    restore_contact = about_one_contact(
        StewardService.restore_contact,
        "Bring a deleted contact back, and its evidence as far as no ban forbids.",
    )
    erase_cluster = about_one_contact(
        StewardService.erase_cluster,
        "Erase all that is known of a customer, in the log as well. It cannot be undone. Backups are outside.",
    )

    @strawberry.mutation(
        description="Erase one identifier wherever it stands, in the log as well. It cannot be undone."
        " Backups are outside."
    )
    async def erase_identifier(
        self,
        info: Info,
        actor: Actor,
        reason: Reason,
        email: EmailArgument = UNSET,
        phone_number: PhoneNumberArgument = UNSET,
        identifier: IdentifierArgument = UNSET,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        rules = info.context.service.normalisation
        found = identifiers_of(given(email), given(phone_number), given(identifier), rules)
        if len(found) != 1:
            raise InvalidInput(Problem("root", "Exactly one of email, phoneNumber or identifier must be provided"))
        wanted = command(actor, reason, expected_version, dry_run)
        return StewardPayload.from_domain(await info.context.steward.erase_identifier(found[0], wanted))

    @strawberry.mutation(
        description="From now on an identifier says nothing about who somebody is: a shared phone number, a test email."
        " A request that brings it is answered as if it had not been given, with the warning BLOCKED_VALUE. Whoever has"
        " it keeps it."
    )
    async def block_identifier(
        self,
        info: Info,
        identifier: BlockedArgument,
        actor: Actor,
        reason: Reason,
        retract: Annotated[
            bool,
            strawberry.argument(
                description="Whether it is taken from whoever has it, and is no evidence any more: what it alone held"
                " together falls apart. `clusters` are all that result."
            ),
        ] = False,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        found = identifier.identifier("identifier", info.context.service.normalisation)
        wanted = command(actor, reason, expected_version, dry_run)
        return StewardPayload.from_domain(await info.context.steward.block_identifier(found, wanted, retract=retract))

    @strawberry.mutation(
        description="From now on an identifier that was blocked counts again. What was retracted stays so: to bring it"
        " back, undo the block."
    )
    async def unblock_identifier(
        self,
        info: Info,
        identifier: BlockedArgument,
        actor: Actor,
        reason: Reason,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        found = identifier.identifier("identifier", info.context.service.normalisation)
        wanted = command(actor, reason, expected_version, dry_run)
        return StewardPayload.from_domain(await info.context.steward.unblock_identifier(found, wanted))


def build_schema() -> strawberry.Schema:
    """The schema; `operations` runs what is asked of it."""
    return strawberry.Schema(Query, Mutation, config=StrawberryConfig(scalar_map=SCALARS))
