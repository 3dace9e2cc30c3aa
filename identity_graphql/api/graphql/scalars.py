"""How single values come in and go out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, NewType, TypeVar

import strawberry
from graphql import BooleanValueNode, FloatValueNode, GraphQLError, IntValueNode, StringValueNode, ValueNode

from identity_graphql.api.moments import moment
from identity_graphql.domain.contacts import PROVISIONAL
from identity_graphql.domain.events import PROVISIONAL_SEQ
from identity_graphql.domain.history import Moment
from identity_graphql.errors import InvalidInput, Problem

T = TypeVar("T")

PhoneNumber = NewType("PhoneNumber", object)
IdentifierValue = NewType("IdentifierValue", object)

LONGEST_NUMBER = 100  # characters; far above any id, and below what Python refuses to read


def _text_or_number(name: str, field: str) -> tuple[Callable[[object], object], Callable[..., object]]:
    """How any single value is read, from a variable and from a document: whether it can be what is wanted is decided
    where it can fail alone."""

    def value(given: object) -> object:
        if isinstance(given, str | int | float):
            return given
        extensions = {"code": "BAD_USER_INPUT", "field": field}
        raise GraphQLError(f"{name} takes a string or an integer.", extensions=extensions)

    def literal(node: ValueNode, variables: dict[str, Any] | None = None) -> object:
        if isinstance(node, StringValueNode):
            return node.value
        if isinstance(node, IntValueNode):
            return int(node.value)
        if isinstance(node, BooleanValueNode):
            return node.value
        if isinstance(node, FloatValueNode):
            return float(node.value)
        return value(None)

    return value, literal


_phone_number, _phone_number_literal = _text_or_number("PhoneNumber", "phoneNumber")
_identifier_value, _identifier_value_literal = _text_or_number("IdentifierValue", "identifiers")


def _moment(value: object) -> datetime:
    try:
        return moment(value)
    except ValueError as error:
        message = f"{str(error)[0].upper()}{str(error)[1:]}."
        raise GraphQLError(message, extensions={"code": "BAD_USER_INPUT"}) from None


SCALARS: dict[object, Any] = {
    PhoneNumber: strawberry.scalar(
        name="PhoneNumber",
        description='A phone number, as a string or an integer: "+1 555 0100", "5550100" or 5550100.',
        parse_value=_phone_number,
        parse_literal=_phone_number_literal,
    ),
    IdentifierValue: strawberry.scalar(
        name="IdentifierValue",
        description='The value of an identifier, as a string or an integer: "A-42" or 42.',
        parse_value=_identifier_value,
        parse_literal=_identifier_value_literal,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment in UTC, as ISO 8601 with up to microseconds: 2026-01-31T09:30:00.000001+00:00.",
        serialize=datetime.isoformat,
        parse_value=_moment,
    ),
}

AsOf = Annotated[
    datetime | None,
    strawberry.argument(
        description="As it was at this moment in the past; exact unless it is but seconds ago. Not with `asOfSeq`."
    ),
]
AsOfSeq = Annotated[
    strawberry.ID | None,
    strawberry.argument(description="As it was right after this event (its `seq`); not together with `asOf`."),
]
ContactId = Annotated[strawberry.ID, strawberry.argument(description="The id of a contact.")]
AnyContactId = Annotated[
    strawberry.ID | None, strawberry.argument(description="The id of any of its contacts, the primary or not.")
]
EmailArgument = Annotated[
    str | None, strawberry.argument(description="Blank, or a word like `null`, counts as not given.")
]
PhoneNumberArgument = Annotated[
    PhoneNumber | None, strawberry.argument(description="Blank, or a word like `null`, counts as not given.")
]


def given(value: T | None) -> T | None:
    """The value of an argument; None where it was left out."""
    return None if value is strawberry.UNSET else value


def number_of(text: str, field: str = "id") -> int:
    """An `ID` as a number. One that cannot be a number is refused."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER):
        raise InvalidInput(Problem(field, f"{field} must be a number"))
    return int(text)


def id_of(number: int) -> strawberry.ID:
    """A number as an `ID`. What a dry run would create has none yet: "new", or "new-2" and so on."""
    if number < PROVISIONAL:
        return strawberry.ID(str(number))
    position = number - PROVISIONAL
    return strawberry.ID("new" if position == 1 else f"new-{position}")


def seq_of(seq: int) -> strawberry.ID | None:
    """The number of an event as an `ID`; None for what a dry run would write, which has none yet."""
    return strawberry.ID(str(seq)) if 0 < seq < PROVISIONAL_SEQ else None


def moment_of(as_of: datetime | None, as_of_seq: strawberry.ID | None) -> Moment | None:
    """The moment that is asked for; None for now. Raises InvalidInput for both at once."""
    at, seq = given(as_of), given(as_of_seq)
    if at is not None and seq is not None:
        raise InvalidInput(Problem("asOf", "asOf and asOfSeq must not be given together"))
    if seq is not None:
        return Moment(seq=number_of(str(seq), "asOfSeq"))
    return None if at is None else Moment(at=at)
