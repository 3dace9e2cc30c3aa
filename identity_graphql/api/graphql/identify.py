"""What `identify` is given and answers: twins of the domain's, joined by `from_domain`."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry
from strawberry import UNSET

from identity_graphql.api.graphql.contacts import Cluster, Contact
from identity_graphql.api.graphql.context import Preview
from identity_graphql.api.graphql.errors import field_of
from identity_graphql.api.graphql.history import Event, Outcome
from identity_graphql.api.graphql.identifiers import IdentifierInput, given_pairs
from identity_graphql.api.graphql.scalars import PhoneNumber, given
from identity_graphql.api.names import wire_names
from identity_graphql.domain import warnings as domain
from identity_graphql.domain.identifiers import Given
from identity_graphql.domain.reconcile import Decision
from identity_graphql.domain.warnings import WarningCode as Code
from identity_graphql.errors import IdentityError


@strawberry.enum(description="What a warning is about.")
class WarningCode(Enum):
    IGNORED_VALUE = strawberry.enum_value("IGNORED_VALUE", description=Code.IGNORED_VALUE.description)
    LINK_WITHHELD = strawberry.enum_value("LINK_WITHHELD", description=Code.LINK_WITHHELD.description)
    BLOCKED_VALUE = strawberry.enum_value("BLOCKED_VALUE", description=Code.BLOCKED_VALUE.description)
    LIMIT_EXCEEDED = strawberry.enum_value("LIMIT_EXCEEDED", description=Code.LIMIT_EXCEEDED.description)


@strawberry.type(description="Something about the request that was settled, but that its sender should know.")
class Warning:
    code: WarningCode = strawberry.field(description="For programs.")
    field: str | None = strawberry.field(description="The argument it is about; null for the request as a whole.")
    message: str = strawberry.field(description="For people.")

    @classmethod
    def from_domain(cls, warning: domain.Warning) -> Warning:
        return cls(code=WarningCode[warning.code.name], field=warning.field, message=warning.message)


@strawberry.type(description="Which customer it is, and what was learned.")
class IdentifyPayload:
    outcome: Outcome = strawberry.field(description="What the request came to.")
    cluster: Cluster = strawberry.field(description="The customer, as it is after the request.")
    contact: Contact | None = strawberry.field(description="The contact that this request created; else null.")
    demoted: list[Contact] = strawberry.field(description="The primaries that this request made secondaries.")
    warnings: list[Warning] = strawberry.field(description="What its sender should know.")
    events: list[Event] = strawberry.field(description="What was written into the log, or in a dry run would be.")

    @classmethod
    def from_domain(cls, decision: Decision, preview: Preview | None = None) -> IdentifyPayload:
        """``preview``: of a dry run."""
        cluster = decision.cluster
        return cls(
            outcome=Outcome[decision.outcome.name],
            cluster=Cluster.from_domain(cluster, preview),
            contact=Contact.from_domain(decision.contact, cluster, preview) if decision.contact else None,
            demoted=[Contact.from_domain(contact, cluster, preview) for contact in decision.demoted],
            warnings=[Warning.from_domain(warning) for warning in decision.warnings],
            events=[Event.from_domain(decision.event)] if decision.event else [],
        )


Identifiers = Annotated[
    list[IdentifierInput] | None,
    strawberry.argument(description="Identifiers of any kind; at most 16 with the email and the phone number."),
]
SOURCE = "Which system says so; at most 64 characters. The log keeps it."
Said = Annotated[str | None, strawberry.argument(description=SOURCE)]
OCCURRED_AT = (
    "When it was true, if that was before now: the age of the contact that is made, so that an older one becomes the"
    " primary."
)
OccurredAt = Annotated[datetime | None, strawberry.argument(description=OCCURRED_AT)]


@strawberry.input(description="What is known of one customer: 1 to 16 identifiers.")
class IdentifyInput:
    email: str | None = strawberry.field(
        default=UNSET, description="Blank, or a word like `null`, counts as not given."
    )
    phone_number: PhoneNumber | None = strawberry.field(
        default=UNSET, description="Blank, or a word like `null`, counts as not given."
    )
    identifiers: list[IdentifierInput] | None = strawberry.field(
        default=UNSET, description="Identifiers of any kind; at most 16 with the email and the phone number."
    )
    source: str | None = strawberry.field(default=UNSET, description=SOURCE)
    occurred_at: datetime | None = strawberry.field(default=UNSET, description=OCCURRED_AT)

    @property
    def given(self) -> Given:
        """What the item brings."""
        return Given(
            given(self.email),
            given(self.phone_number),
            given_pairs(self.identifiers),
            given(self.source),
            given(self.occurred_at),
        )


@strawberry.type(description="Why an item failed; the others are not concerned.")
class IdentifyError:
    code: str = strawberry.field(description="For programs: BAD_USER_INPUT, BUSY, ...; as in `extensions.code`.")
    field: str | None = strawberry.field(description="The field it is about; null for the item as a whole.")
    message: str = strawberry.field(description="For people.")


@strawberry.type(description="What became of one item: a payload or an error.")
class IdentifyItem:
    payload: IdentifyPayload | None = strawberry.field(default=None, description="Null if the item failed.")
    error: IdentifyError | None = strawberry.field(default=None, description="Null if it did not.")

    @classmethod
    def from_domain(cls, result: Decision | IdentityError, preview: Preview | None = None) -> IdentifyItem:
        """``preview``: of a dry run."""
        if isinstance(result, Decision):
            return cls(payload=IdentifyPayload.from_domain(result, preview))
        return cls(error=IdentifyError(code=result.code, field=field_of(result), message=wire_names(result.message)))
