"""Queries and mutations."""

from __future__ import annotations

from typing import Annotated

import strawberry
from strawberry import UNSET
from strawberry.schema.config import StrawberryConfig

from identity_graphql.graphql.connections import DEFAULT_PAGE, After, Connection, First, page_size, position_of
from identity_graphql.graphql.contacts import Cluster, Contact
from identity_graphql.graphql.context import Info
from identity_graphql.graphql.identify import IdentifyInput, IdentifyItem, IdentifyPayload
from identity_graphql.graphql.scalars import (
    SCALARS,
    AnyContactId,
    ContactId,
    EmailArgument,
    PhoneNumberArgument,
    given,
    number_of,
)

Items = Annotated[list[IdentifyInput], strawberry.argument(description="1 to 1,000 of them.")]


@strawberry.type(description="What is known. Queries never write.")
class Query:
    @strawberry.field(description="One contact, a deleted one too; null if no such id was ever given out.")
    async def contact(self, info: Info, id: ContactId) -> Contact | None:
        found = await info.context.contacts.load(number_of(id))
        return Contact.from_domain(found) if found else None

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
    ) -> Cluster | None:
        contact_id = None if given(id) is None else number_of(str(id))
        found = await info.context.service.cluster(
            contact_id=contact_id, email=given(email), phone_number=given(phone_number)
        )
        return Cluster.from_domain(found) if found else None

    @strawberry.field(description="All live contacts, by id.")
    async def contacts(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Contact]:
        size, cursor = page_size(first), given(after)
        found = await info.context.service.page_of_contacts(after=position_of(cursor), limit=size + 1)
        nodes = [Contact.from_domain(contact) for contact in found]
        return Connection.of(nodes, [contact.id for contact in found], first=size, after=cursor)

    @strawberry.field(description="All clusters, by the id of their primary.")
    async def clusters(self, info: Info, first: First = DEFAULT_PAGE, after: After = UNSET) -> Connection[Cluster]:
        size, cursor = page_size(first), given(after)
        found = await info.context.service.page_of_clusters(after=position_of(cursor), limit=size + 1)
        nodes = [Cluster.from_domain(cluster) for cluster in found]
        return Connection.of(nodes, [cluster.primary.id for cluster in found], first=size, after=cursor)


@strawberry.type(description="What can be told. All of it is safe to repeat.")
class Mutation:
    @strawberry.mutation(
        description="Link an email, a phone number, or both to their customer, and answer with all that is known of"
        " that customer. What is known already changes nothing."
    )
    async def identify(
        self, info: Info, email: EmailArgument = UNSET, phone_number: PhoneNumberArgument = UNSET
    ) -> IdentifyPayload:
        decision = await info.context.service.identify(email=given(email), phone_number=given(phone_number))
        return IdentifyPayload.from_domain(decision)

    @strawberry.mutation(
        description="`identify` for many, in order, in one batch; as many answers in the same order. An item that"
        " fails does so alone."
    )
    async def identify_many(self, info: Info, items: Items) -> list[IdentifyItem]:
        results = await info.context.service.identify_many(
            [(given(item.email), given(item.phone_number)) for item in items]
        )
        return [IdentifyItem.from_domain(result) for result in results]


def build_schema() -> strawberry.Schema:
    """The schema; `operations` runs what is asked of it."""
    return strawberry.Schema(Query, Mutation, config=StrawberryConfig(scalar_map=SCALARS))
