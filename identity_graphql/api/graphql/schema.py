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
from identity_graphql.api.graphql.contacts import Cluster, Contact, WithheldPair
from identity_graphql.api.graphql.context import Info, Preview
from identity_graphql.api.graphql.history import Ban, Event, EventKind, Explanation, event_filter
from identity_graphql.api.graphql.identify import IdentifyInput, IdentifyItem, IdentifyPayload
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
    DryRun,
    ExpectedOtherVersion,
    ExpectedVersion,
    IdentifierInput,
    Reason,
    StewardPayload,
    SubjectInput,
    command,
    identifiers_of,
)
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.reconcile import Decision
from identity_graphql.errors import IdentityError, InvalidInput, Problem
from identity_graphql.observability import note
from identity_graphql.services.stewardship import StewardService

Kinds = Annotated[
    list[EventKind] | None, strawberry.argument(description="What was done: one of these. All kinds, if left out.")
]
LoggedActor = Annotated[
    str | None, strawberry.argument(description="Who did it, exactly as it is logged. Requests have no actor.")
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
        description="The customer who has a contact, an email or a phone number: exactly one of the three. Null if"
        " nobody has it; the error GONE if the contact was deleted."
    )
    async def cluster(
        self,
        info: Info,
        id: AnyContactId = UNSET,
        email: EmailArgument = UNSET,
        phone_number: PhoneNumberArgument = UNSET,
        as_of: AsOf = UNSET,
        as_of_seq: AsOfSeq = UNSET,
    ) -> Cluster | None:
        contact_id = None if given(id) is None else number_of(str(id))
        moment = moment_of(as_of, as_of_seq)
        service = info.context.service
        if moment is None:
            found = await service.cluster(contact_id=contact_id, email=given(email), phone_number=given(phone_number))
            return Cluster.from_domain(found) if found else None
        subject = service.subject(contact_id, email=given(email), phone_number=given(phone_number))
        history, home = await info.context.history.of(subject, moment)
        info.context.charge(len(history.events))
        return None if home is None else Cluster.from_domain(history.cluster(home), history)

    @strawberry.field(description="All live contacts, by id.")
    async def contacts(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Contact]:
        size, cursor = page_size(first), given(after)
        found = await info.context.service.page_of_contacts(after=position_of(cursor), limit=size + 1)
        nodes = [Contact.from_domain(contact) for contact in found]
        return Connection.of(nodes, [contact.id for contact in found], first=size, after=cursor)

    @strawberry.field(description="All clusters, by the id of their primary.")
    async def clusters(
        self,
        info: Info,
        first: First = DEFAULT_PAGE,
        after: After = UNSET,
        as_of: AsOf = UNSET,
        as_of_seq: AsOfSeq = UNSET,
    ) -> Connection[Cluster]:
        size, cursor, moment = page_size(first), given(after), moment_of(as_of, as_of_seq)
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
            charge=info.context.charge,
        )
        nodes = [Event.from_domain(event, kept_from=there, undone_by=undo) for event, undo, there in found]
        return Connection.of(nodes, [logged.event.seq for logged in found], first=size, after=cursor)

    @strawberry.field(
        description="What bans keep back, or kept back and nobody decided on since, for a steward to look through: the"
        " pairs that wait, by event."
    )
    async def withheld(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[WithheldPair]:
        size, cursor = page_size(first), given(after)
        found = await info.context.history.page_of_withheld(after=position_of(cursor), limit=size + 1)
        nodes = [WithheldPair.from_domain(pair, withheld) for pair, withheld in found]
        return Connection.of(nodes, [withheld.seq for _, withheld in found], first=size, after=cursor)

    @strawberry.field(description="All bans, by the event that decided so.")
    async def bans(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Ban]:
        size, cursor = page_size(first), given(after)
        seq, contact_id, other_id = key_of(cursor, 3)
        found = await info.context.history.page_of_bans(after=(contact_id, other_id, seq), limit=size + 1)
        nodes = [Ban.from_domain(ban) for ban in found]
        return Connection.of(nodes, [(seq, *contacts) for *contacts, seq in found], first=size, after=cursor)


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
        description="Link an email, a phone number, or both to their customer, and answer with all that is known of"
        " that customer. What is known already changes nothing."
    )
    async def identify(
        self,
        info: Info,
        email: EmailArgument = UNSET,
        phone_number: PhoneNumberArgument = UNSET,
        dry_run: DryRun = False,
    ) -> IdentifyPayload:
        identify = info.context.service.preview if dry_run else info.context.service.identify
        decision = await identify(email=given(email), phone_number=given(phone_number))
        return IdentifyPayload.from_domain(decision, Preview([decision]) if dry_run else None)

    @strawberry.mutation(
        description="`identify` for many, in order, in one batch; as many answers in the same order. An item that"
        " fails does so alone. In a dry run, each sees what those before it would have done."
    )
    async def identify_many(self, info: Info, items: Items, dry_run: DryRun = False) -> list[IdentifyItem]:
        results = await info.context.service.identify_many(
            [(given(item.email), given(item.phone_number)) for item in items], dry_run=dry_run
        )
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
        description="Erase one email or phone number wherever it stands, in the log as well. It cannot be undone."
        " Backups are outside."
    )
    async def erase_identifier(
        self,
        info: Info,
        actor: Actor,
        reason: Reason,
        email: EmailArgument = UNSET,
        phone_number: PhoneNumberArgument = UNSET,
        expected_version: ExpectedVersion = UNSET,
        dry_run: DryRun = False,
    ) -> StewardPayload:
        found = identifiers_of(given(email), given(phone_number), info.context.service.normalisation)
        if len(found) != 1:
            raise InvalidInput(Problem("root", "Exactly one of email or phoneNumber must be provided"))
        wanted = command(actor, reason, expected_version, dry_run)
        return StewardPayload.from_domain(await info.context.steward.erase_identifier(found[0], wanted))


def build_schema() -> strawberry.Schema:
    """The schema; `operations` runs what is asked of it."""
    return strawberry.Schema(Query, Mutation, config=StrawberryConfig(scalar_map=SCALARS))
