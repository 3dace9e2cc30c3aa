"""Queries and mutations."""

from __future__ import annotations

import strawberry
from graphql import GraphQLError
from strawberry import ID
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from identity_graphql.graphql.context import Info
from identity_graphql.graphql.extensions import CodedErrors, document_cache
from identity_graphql.graphql.types import (
    PHONE_NUMBER,
    Cluster,
    Connection,
    Contact,
    Cursor,
    First,
    IdentifyInput,
    IdentifyItem,
    IdentifyPayload,
    PhoneNumber,
    contact_id,
    number_of,
    page_size,
)


@strawberry.type
class Query:
    @strawberry.field(description="One contact, a deleted one too; null if no such id was ever given out.")
    async def contact(self, info: Info, id: ID) -> Contact | None:
        found = await info.context.contacts.load(contact_id(id))
        return Contact.from_domain(found) if found else None

    @strawberry.field(
        description="The cluster of exactly one of: any of its contacts' ids, an email, a phone number. Writes nothing."
    )
    async def cluster(
        self,
        info: Info,
        id: ID | None = None,
        email: str | None = None,
        phone_number: PhoneNumber | None = None,
    ) -> Cluster | None:
        found = await info.context.service.cluster(
            contact_id=None if id is None else contact_id(id), email=email, phone_number=phone_number
        )
        return Cluster.from_domain(found) if found else None

    @strawberry.field(description="All live contacts, by id.")
    async def contacts(self, info: Info, first: First = 20, after: Cursor = None) -> Connection[Contact]:
        size = page_size(first)
        found = await info.context.service.page_of_contacts(after=number_of(after), limit=size + 1)
        nodes = [Contact.from_domain(contact) for contact in found]
        return Connection.of(nodes, [contact.id for contact in found], first=size, after=after)

    @strawberry.field(description="All clusters, by the id of their primary.")
    async def clusters(self, info: Info, first: First = 20, after: Cursor = None) -> Connection[Cluster]:
        size = page_size(first)
        found = await info.context.service.page_of_clusters(after=number_of(after), limit=size + 1)
        nodes = [Cluster.from_domain(cluster) for cluster in found]
        return Connection.of(nodes, [cluster.primary.id for cluster in found], first=size, after=after)


@strawberry.type
class Mutation:
    @strawberry.mutation(description="Link an email, a phone number, or both to their cluster.")
    async def identify(
        self, info: Info, email: str | None = None, phone_number: PhoneNumber | None = None
    ) -> IdentifyPayload:
        return IdentifyPayload.from_domain(await info.context.service.identify(email=email, phone_number=phone_number))

    @strawberry.mutation(
        description="`identify` for up to 1,000 items, in order, in one batch. An item that fails does so alone."
    )
    async def identify_many(self, info: Info, items: list[IdentifyInput]) -> list[IdentifyItem]:
        results = await info.context.service.identify_many([(item.email, item.phone_number) for item in items])
        return [IdentifyItem.from_domain(result) for result in results]


class Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing: Strawberry's own way logs every mistake of a client, with the text of its query.

        What is no client's mistake is logged by `CodedErrors`.
        """


def build_schema() -> Schema:
    """The schema, with what every operation goes through: limits, the document cache, coded errors."""
    return Schema(
        Query,
        Mutation,
        extensions=[CodedErrors, document_cache()],
        config=StrawberryConfig(scalar_map={PhoneNumber: PHONE_NUMBER}),
    )
