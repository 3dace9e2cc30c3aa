"""Identifiers of any kind, in answers."""

from __future__ import annotations

import strawberry

from identity_graphql.domain import identifiers as domain
from identity_graphql.domain.erasure import is_token


@strawberry.type(description="A value that stands for a customer, as it is compared.")
class Identifier:
    kind: str = strawberry.field(description="Its kind: `email` or `phone_number`.")
    value: str | None = strawberry.field(description="Its value; null if it was erased.")

    @classmethod
    def from_domain(cls, identifier: domain.Identifier) -> Identifier:
        return cls(kind=identifier.kind, value=None if is_token(identifier.value) else identifier.value)
