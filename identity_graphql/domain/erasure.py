"""What takes a value out of the log for good, and leaves the log's shape (E4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, IdentifyEvent
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Identifier
from identity_graphql.domain.phone_numbers import LIKE
from identity_graphql.domain.verbs import Verb

ERASED: Final = "erased:"
"""Every token begins with it. No email or phone number does: it has no @, and letters."""
RAW = {EMAIL: "email", PHONE_NUMBER: "phoneNumber"}

Tokens = Mapping[Identifier, str]
"""What stands in the place of a value from now on: random, never a hash; the same one throughout the log."""


def is_token(value: str | None) -> bool:
    """Returns whether this stands in the place of an erased value."""
    return value is not None and value.startswith(ERASED)


def without_tokens(contact: Contact) -> tuple[Contact, bool]:
    """Returns a contact of an earlier time without what was erased since, and whether something was."""
    email, phone_number = (None if is_token(value) else value for value in (contact.email, contact.phone_number))
    if (email, phone_number) == (contact.email, contact.phone_number):
        return contact, False
    return replace(contact, email=email, phone_number=phone_number), True


def names(event: Event, identifiers: Collection[Identifier]) -> bool:
    """Returns whether one of these values stands anywhere in an event."""
    if isinstance(event, IdentifyEvent):
        return any(identifier in identifiers for identifier in event.identifiers)
    values = {identifier.value for identifier in identifiers}
    if any(_pattern(values, text).search(text) for text in (event.reason, event.actor)):
        return True
    return any(text in values for part in (event.verb, event.changes) for text in _texts(msgspec.to_builtins(part)))


def rewritten(event: Event, tokens: Tokens) -> Event:
    """Returns the event with tokens in the place of values.

    What was typed for them is gone altogether, and so is the id of the request that brought them: a caller may have
    made it of anything.
    """
    if isinstance(event, IdentifyEvent):
        erased = {RAW[identifier.kind] for identifier in event.identifiers if identifier in tokens}
        return replace(
            event,
            email=_token(tokens, EMAIL, event.email),
            phone_number=_token(tokens, PHONE_NUMBER, event.phone_number),
            raw={name: text for name, text in event.raw.items() if name not in erased},
            request_id=None if erased else event.request_id,
        )
    by_value = {identifier.value: token for identifier, token in tokens.items()}
    verb = msgspec.convert(_replaced(msgspec.to_builtins(event.verb), by_value), Verb)
    changes = replaced(event.changes, by_value)
    actor, reason = (_pattern(by_value, text).sub("erased", text) for text in (event.actor, event.reason))
    touched = (verb, changes, actor, reason) != (event.verb, event.changes, event.actor, event.reason)
    request_id = None if touched else event.request_id
    return replace(event, verb=verb, changes=changes, actor=actor, reason=reason, request_id=request_id)


def replaced(changes: Changes, by_value: Mapping[str, str]) -> Changes:
    """Returns the changes with other values in the place of these: tokens for values, or values for tokens."""
    return msgspec.convert(_replaced(msgspec.to_builtins(changes), by_value), Changes)


def _token(tokens: Tokens, kind: str, value: str | None) -> str | None:
    return None if value is None else tokens.get(Identifier(kind, value), value)


def _pattern(values: Iterable[str], text: str) -> re.Pattern[str]:
    """Any of these values within this text, but not within a longer one; longer ones first."""
    small, digits = text.lower(), "".join(filter(str.isdigit, text))
    # There may be thousands, of which a text has a few.
    likely = (v for v in values if (v in small if "@" in v else v.partition(";")[0].lstrip("+") in digits))
    ordered = sorted(likely, key=len, reverse=True)
    return re.compile("|".join(map(_mention, ordered)) or "(?!)", re.IGNORECASE)


_SEPARATORS = r"[\s{}]*".format(re.escape("().-/" + "".join(LIKE[sign] for sign in "().-/")))
"""What people write between the digits of a number."""


def _mention(value: str) -> str:
    """A value as people write it: an email in any case, a phone number in groups of digits."""
    if "@" in value:
        return rf"(?<![\w.%+-]){re.escape(value)}(?![\w-]|\.\w)"
    number, extension, digits = value.removeprefix("+").partition(";ext=")
    grouped = _SEPARATORS.join(map(re.escape, number))
    extended = rf"\s*(?:;ext=|x|ext\.?)\s*{re.escape(digits)}" if extension else ""
    return rf"(?<!\d)(?:\+|00)?{grouped}{extended}(?!\d)"


def _texts(document: Any) -> Iterable[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from _texts(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _texts(value)


def _replaced(document: Any, by_value: Mapping[str, str]) -> Any:
    if isinstance(document, str):
        return by_value.get(document, document)
    if isinstance(document, Mapping):
        return {name: _replaced(value, by_value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_replaced(value, by_value) for value in document]
    return document
