"""Identifiers as they are given and shown: twins of the domain's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import strawberry
from strawberry import ID, UNSET

from identity_graphql.api.graphql.scalars import IdentifierValue, PhoneNumber, given, number_of
from identity_graphql.domain import identifiers as domain
from identity_graphql.domain.erasure import is_token
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Normalisation
from identity_graphql.domain.kinds import Kind
from identity_graphql.domain.state import Node, Pair
from identity_graphql.errors import InvalidInput, Problem


@strawberry.type(description="A value that stands for a customer, as it is compared.")
class Identifier:
    kind: str = strawberry.field(description="Its kind, such as `email`; `identifierKinds` has them all.")
    value: str | None = strawberry.field(description="Its value; null if it was erased.")

    @classmethod
    def from_domain(cls, identifier: domain.Identifier) -> Identifier:
        return cls(kind=identifier.kind, value=None if is_token(identifier.value) else identifier.value)


@strawberry.type(description="A kind of identifiers that requests may bring.")
class IdentifierKind:
    name: str = strawberry.field(description="Its name, such as `customer_id`.")
    limit: int | None = strawberry.field(
        description="How many values of it one customer has at most; null: any number."
    )
    withholds: bool = strawberry.field(
        description="What is done where a request would exceed the limit: whether it is withheld, or linked with the"
        " warning LIMIT_EXCEEDED."
    )

    @classmethod
    def from_domain(cls, kind: Kind) -> IdentifierKind:
        return cls(name=kind.name, limit=kind.limit, withholds=kind.withholds)


@strawberry.input(description="An identifier of any kind.")
class IdentifierInput:
    kind: str = strawberry.field(description="`email`, `phone_number`, or a kind of the setting IDENTIFIER_KINDS.")
    value: IdentifierValue = strawberry.field(description="Blank, or a word like `null`, counts as not given.")

    def identifier(self, name: str, normalisation: Normalisation) -> domain.Identifier:
        """The identifier as it is compared. Raises InvalidInput, also where it says nothing."""
        with within(name):
            found = normalisation.identifier(self.kind, self.value)
        if found is None:
            raise InvalidInput(Problem(name, f"{name} must have a value that says something."))
        return found


IdentifierArgument = Annotated[IdentifierInput | None, strawberry.argument(description="An identifier of any kind.")]


def given_pairs(identifiers: Sequence[IdentifierInput] | None) -> list[tuple[object, object]]:
    """The kinds and values that a request brings."""
    return [(identifier.kind, identifier.value) for identifier in given(identifiers) or ()]


def pair_of(identifiers: Sequence[IdentifierInput], normalisation: Normalisation) -> Pair:
    """The pair of two identifiers. Raises InvalidInput for more or fewer."""
    found = {identifier.identifier("identifiers", normalisation) for identifier in identifiers}
    if len(found) != 2:
        raise InvalidInput(Problem("identifiers", "identifiers must be the two of a pair."))
    ((one, other),) = domain.pairs_of(found)
    return one, other


def identifiers_of(
    email: object, phone_number: object, identifier: IdentifierInput | None, normalisation: Normalisation
) -> list[domain.Identifier]:
    """Those of the three that are given."""
    values = (EMAIL, normalisation.email(email)), (PHONE_NUMBER, normalisation.phone_number(phone_number))
    found = [domain.Identifier(kind, value) for kind, value in values if value is not None]
    return found if identifier is None else [*found, identifier.identifier("identifier", normalisation)]


def subject_of(
    contact_id: ID | None,
    email: object,
    phone_number: object,
    identifier: IdentifierInput | None,
    normalisation: Normalisation,
) -> Node:
    """The contact or the identifier that is meant. Raises InvalidInput unless it is exactly one."""
    identifiers = identifiers_of(given(email), given(phone_number), given(identifier), normalisation)
    number = given(contact_id)
    if (number is not None) + len(identifiers) != 1:
        message = "Exactly one of id, email, phoneNumber or identifier must be provided"
        raise InvalidInput(Problem("root", message))
    return identifiers[0] if number is None else number_of(str(number))


@strawberry.input(
    description="A contact, or an identifier, which stands for the contact that claims it: one of the four."
)
class SubjectInput:
    contact_id: ID | None = strawberry.field(default=UNSET, description="A contact.")
    email: str | None = strawberry.field(default=UNSET, description="An email.")
    phone_number: PhoneNumber | None = strawberry.field(default=UNSET, description="A phone number.")
    identifier: IdentifierInput | None = strawberry.field(default=UNSET, description="An identifier of any kind.")

    def subject(self, name: str, normalisation: Normalisation) -> Node:
        """Which of them. Raises InvalidInput unless it is exactly one."""
        contact_id = given(self.contact_id)
        with within(name):
            identifiers = identifiers_of(
                given(self.email), given(self.phone_number), given(self.identifier), normalisation
            )
        if (contact_id is not None) + len(identifiers) != 1:
            message = f"{name} must have exactly one of contactId, email, phoneNumber or identifier."
            raise InvalidInput(Problem(name, message))
        return identifiers[0] if contact_id is None else number_of(str(contact_id), name)


@contextmanager
def within(name: str) -> Iterator[None]:
    """Name the fields that are wrong by the path to them: of two ends, it matters which."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(*(Problem(f"{name}.{p.path}", p.message) for p in error.problems)) from None
