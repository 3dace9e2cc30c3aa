"""Identifiers and pairs, by their normalised values."""

from __future__ import annotations

from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.state import Pair


def email(value: str) -> Identifier:
    return Identifier(EMAIL, value)


def phone_number(value: str) -> Identifier:
    return Identifier(PHONE_NUMBER, value)


def pair_of(email: str, phone_number: str) -> Pair:
    return Identifier(EMAIL, email), Identifier(PHONE_NUMBER, phone_number)
