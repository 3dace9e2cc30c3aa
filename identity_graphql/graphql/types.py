"""The public types: twins of the domain's, joined by `from_domain`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Generic, NewType, TypeVar

import strawberry
from graphql import GraphQLError, IntValueNode, StringValueNode, ValueNode
from strawberry import ID

from identity_graphql.domain import contacts as domain
from identity_graphql.domain.contacts import LinkPrecedence
from identity_graphql.domain.events import Outcome
from identity_graphql.domain.identifiers import Ignored
from identity_graphql.domain.reconcile import Decision
from identity_graphql.errors import IdentityError, InvalidInput, Problem
from identity_graphql.graphql.context import Info

strawberry.enum(
    LinkPrecedence, description="The oldest contact of a cluster is its primary, the others are secondaries."
)
strawberry.enum(Outcome, description="What a request came to.")

PhoneNumber = NewType("PhoneNumber", object)

LARGEST_INT_LITERAL = 20  # digits


def _phone_number(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise GraphQLError(
        "PhoneNumber takes a string or an integer.",
        extensions={"code": "BAD_USER_INPUT", "field": "phoneNumber"},
    )


def _phone_number_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> object:
    if isinstance(node, StringValueNode):
        return node.value
    if isinstance(node, IntValueNode) and len(node.value) <= LARGEST_INT_LITERAL:
        return int(node.value)
    return _phone_number(None)


PHONE_NUMBER = strawberry.scalar(
    name="PhoneNumber",
    description="A phone number: a string or an integer.",
    parse_value=_phone_number,
    parse_literal=_phone_number_literal,
)

Node = TypeVar("Node")
Cursor = Annotated[str | None, strawberry.argument(description="The `endCursor` of the page before.")]
First = Annotated[int, strawberry.argument(description="How many, 1 to 100.")]
LARGEST_PAGE = 100


def page_size(first: int) -> int:
    """``first``, if it is one of 1..100."""
    if not 1 <= first <= LARGEST_PAGE:
        raise InvalidInput(Problem("first", f"first must be between 1 and {LARGEST_PAGE}"))
    return first


def contact_id(text: str, *, field: str = "id") -> int:
    """An `ID` as a number. One that cannot be a number is refused."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 1000):
        raise InvalidInput(Problem(field, f"{field} must be a number"))
    return int(text)


def cursor_of(number: int) -> str:
    """An opaque cursor."""
    return base64.urlsafe_b64encode(f"id:{number}".encode()).decode()


def number_of(cursor: str | None) -> int:
    """What `cursor_of` was made from; 0, before all, for no cursor."""
    if cursor is None:
        return 0
    try:
        name, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        if name == "id" and number.isascii() and number.isdigit() and int(number[:20]) < domain.PROVISIONAL:
            return int(number)
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise InvalidInput(Problem("after", "after must be a cursor of this list"))


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[Node]):
    cursor: str
    node: Node


@strawberry.type
class Connection(Generic[Node]):
    """One page of a list, and how to get the next."""

    edges: list[Edge[Node]]
    page_info: PageInfo

    @classmethod
    def of(cls, nodes: Sequence[Node], ids: Sequence[int], *, first: int, after: str | None) -> Connection[Node]:
        """A page of at most ``first`` of these nodes; one more of them tells that there is a next page."""
        edges = [Edge(cursor=cursor_of(i), node=node) for node, i in zip(nodes[:first], ids, strict=False)]
        return cls(
            edges=edges,
            page_info=PageInfo(
                has_next_page=len(nodes) > first,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@strawberry.type(description="One stored record: an email, a phone number, or both.")
class Contact:
    home: strawberry.Private[domain.Cluster | None]
    id: ID
    email: str | None
    phone_number: str | None
    linked_id: ID | None = strawberry.field(description="A secondary's primary; null for a primary.")
    link_precedence: LinkPrecedence
    created_at: datetime
    updated_at: datetime = strawberry.field(description="Changes only when this record's own link or deletion changes.")
    deleted_at: datetime | None

    @classmethod
    def from_domain(cls, contact: domain.Contact, home: domain.Cluster | None = None) -> Contact:
        """With ``home``, the cluster it was read with, its links cost no further look-up."""
        return cls(
            home=home,
            id=ID(str(contact.id)),
            email=contact.email,
            phone_number=contact.phone_number,
            linked_id=None if contact.linked_id is None else ID(str(contact.linked_id)),
            link_precedence=contact.link_precedence,
            created_at=contact.created_at,
            updated_at=contact.updated_at,
            deleted_at=contact.deleted_at,
        )

    @strawberry.field(description="The primary that a secondary is linked to.")
    async def linked(self, info: Info) -> Contact | None:
        if self.linked_id is None:
            return None
        if self.home is not None:
            return Contact.from_domain(self.home.primary, self.home)
        found = await info.context.contacts.load(int(self.linked_id))
        return Contact.from_domain(found) if found else None

    @strawberry.field(description="The customer it belongs to; null for a deleted contact.")
    async def cluster(self, info: Info) -> Cluster | None:
        if self.deleted_at is not None:
            return None
        found = self.home or await info.context.clusters.load(int(self.id))
        return Cluster.from_domain(found) if found else None


@strawberry.type(
    description="All live contacts of one customer. Lists begin with the primary's values, then by seniority."
)
class Cluster:
    entity: strawberry.Private[domain.Cluster]
    id: ID = strawberry.field(description="The primary's id.")
    primary_contact_id: ID
    size: int
    version: int = strawberry.field(description="Goes up by one with every event of this cluster.")
    changed_at: datetime

    @classmethod
    def from_domain(cls, cluster: domain.Cluster) -> Cluster:
        primary_id = ID(str(cluster.primary.id))
        return cls(
            entity=cluster,
            id=primary_id,
            primary_contact_id=primary_id,
            size=cluster.size,
            version=cluster.version,
            changed_at=cluster.changed_at,
        )

    @strawberry.field
    def primary(self) -> Contact:
        return Contact.from_domain(self.entity.primary, self.entity)

    @strawberry.field
    def secondaries(self) -> list[Contact]:
        return [Contact.from_domain(contact, self.entity) for contact in self.entity.secondaries]

    @strawberry.field
    def emails(self) -> list[str]:
        return list(self.entity.emails)

    @strawberry.field
    def phone_numbers(self) -> list[str]:
        return list(self.entity.phone_numbers)

    @strawberry.field
    def secondary_contact_ids(self) -> list[ID]:
        return [ID(str(number)) for number in self.entity.secondary_contact_ids]

    @strawberry.field(description="The contacts by seniority, page by page.")
    def contacts(self, first: First = 20, after: Cursor = None) -> Connection[Contact]:
        size, last = page_size(first), number_of(after)
        members = self.entity.contacts
        start = 0
        if after is not None:
            start = next((n for n, member in enumerate(members, 1) if member.id == last), 0)
            if start == 0:
                raise InvalidInput(Problem("after", "after must be a cursor of this list"))
        page = members[start : start + size + 1]
        nodes = [Contact.from_domain(contact, self.entity) for contact in page]
        return Connection.of(nodes, [contact.id for contact in page], first=size, after=after)


@strawberry.enum
class WarningCode(Enum):
    IGNORED_VALUE = "IGNORED_VALUE"


@strawberry.type(description="Something about the request that was settled, but that its sender should know.")
class Warning:
    code: WarningCode
    field: str | None
    message: str

    @classmethod
    def from_domain(cls, ignored: Ignored) -> Warning:
        return cls(code=WarningCode.IGNORED_VALUE, field=ignored.field, message=ignored.message)


@strawberry.type
class IdentifyPayload:
    outcome: Outcome
    cluster: Cluster
    contact: Contact | None = strawberry.field(description="The contact that this request created.")
    demoted: list[Contact] = strawberry.field(description="The primaries that this request made secondaries.")
    warnings: list[Warning]

    @classmethod
    def from_domain(cls, decision: Decision) -> IdentifyPayload:
        cluster = decision.cluster
        return cls(
            outcome=decision.outcome,
            cluster=Cluster.from_domain(cluster),
            contact=Contact.from_domain(decision.contact, cluster) if decision.contact else None,
            demoted=[Contact.from_domain(contact, cluster) for contact in decision.demoted],
            warnings=[Warning.from_domain(ignored) for ignored in decision.request.details.ignored],
        )


@strawberry.input(description="An email, a phone number, or both.")
class IdentifyInput:
    email: str | None = None
    phone_number: PhoneNumber | None = None


@strawberry.type
class IdentifyError:
    code: str
    field: str | None
    message: str


@strawberry.type(description="What became of one item: a payload or an error.")
class IdentifyItem:
    payload: IdentifyPayload | None = None
    error: IdentifyError | None = None

    @classmethod
    def from_domain(cls, result: Decision | IdentityError) -> IdentifyItem:
        if isinstance(result, Decision):
            return cls(payload=IdentifyPayload.from_domain(result))
        return cls(error=IdentifyError(code=result.code, field=field_of(result), message=result.message))


def field_of(error: IdentityError) -> str | None:
    """The first field that an input error is about; None for the input as a whole, or another error."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return next((problem.path for problem in problems if problem.path != "root"), None)
