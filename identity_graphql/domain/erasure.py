"""What takes a value out of the log for good, and leaves the log's shape (E4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from identity_graphql.domain.changes import Changes
from identity_graphql.domain.contacts import Contact
from identity_graphql.domain.events import Event, IdentifyEvent
from identity_graphql.domain.identifiers import BUILT_IN, EMAIL, PHONE_NUMBER, Identifier, raw_without
from identity_graphql.domain.phone_numbers import LIKE
from identity_graphql.domain.verbs import Verb

ERASED: Final = "erased:"
"""Every token begins with it. No email or phone number does: it has no @, and letters."""
SHORTEST_MENTION = 5
"""characters of a value that is looked for in the texts of people, unless it is an email or a phone number"""

Tokens = Mapping[Identifier, str]
"""What stands in the place of a value from now on: random, never a hash; the same one throughout the log."""


def is_token(value: str | None) -> bool:
    """Returns whether this stands in the place of an erased value."""
    return value is not None and value.startswith(ERASED)


def without_tokens(contact: Contact) -> tuple[Contact, bool]:
    """Returns a contact of an earlier time without what was erased since, and whether something was."""
    left = tuple(identifier for identifier in contact.carried if not is_token(identifier.value))
    if left == contact.carried:
        return contact, False
    email = None if is_token(contact.email) else contact.email
    phone_number = None if is_token(contact.phone_number) else contact.phone_number
    others = tuple(identifier for identifier in contact.others if not is_token(identifier.value))
    return replace(contact, email=email, phone_number=phone_number, others=others), True


def names(event: Event, identifiers: Collection[Identifier]) -> bool:
    """Returns whether one of these identifiers stands anywhere in an event.

    In a reason or an actor, values of other kinds than emails and phone numbers count only from `SHORTEST_MENTION`
    characters on: a customer id "1" stands in every other sentence, and would connect every lineage.
    """
    if isinstance(event, IdentifyEvent):
        return any(identifier in identifiers for identifier in event.identifiers)
    if any(_pattern(identifiers, text).search(text) for text in (event.reason, event.actor)):
        return True
    wanted = frozenset(identifiers)
    return any(found in wanted for part in (event.verb, event.changes) for found in _identifiers(_document(part)))


def rewritten(event: Event, tokens: Tokens) -> Event:
    """Returns the event with tokens in the place of values.

    What was typed for them is gone altogether, and so is the id of the request that brought them: a caller may have
    made it of anything. Reasons and actors lose what `names` finds in them.
    """
    if isinstance(event, IdentifyEvent):
        erased = {identifier.kind for identifier in event.identifiers if identifier in tokens}
        return replace(
            event,
            email=_token(tokens, EMAIL, event.email),
            phone_number=_token(tokens, PHONE_NUMBER, event.phone_number),
            # In the order of before: that is how they are judged again.
            others=tuple(_tokenised(identifier, tokens) for identifier in event.others),
            kept_back=tuple(replace(kept, identifier=_tokenised(kept.identifier, tokens)) for kept in event.kept_back),
            raw=raw_without(event.raw, erased),
            request_id=None if erased else event.request_id,
        )
    verb = msgspec.convert(_replaced(_document(event.verb), tokens), Verb)
    changes = replaced(event.changes, tokens)
    actor, reason = (_pattern(tokens, text).sub("erased", text) for text in (event.actor, event.reason))
    touched = (verb, changes, actor, reason) != (event.verb, event.changes, event.actor, event.reason)
    request_id = None if touched else event.request_id
    return replace(event, verb=verb, changes=changes, actor=actor, reason=reason, request_id=request_id)


def replaced(changes: Changes, values: Mapping[Identifier, str]) -> Changes:
    """Returns the changes with other values for these identifiers: tokens for values, or values for tokens."""
    return msgspec.convert(_replaced(_document(changes), values), Changes)


def _tokenised(identifier: Identifier, tokens: Tokens) -> Identifier:
    return Identifier(identifier.kind, tokens.get(identifier, identifier.value))


def _token(tokens: Tokens, kind: str, value: str | None) -> str | None:
    return None if value is None else tokens.get(Identifier(kind, value), value)


def _pattern(identifiers: Iterable[Identifier], text: str) -> re.Pattern[str]:
    """Any of these identifiers within this text, but not within a longer one; longer ones first."""
    folded, digits = text.casefold(), "".join(filter(str.isdigit, text))
    # There may be thousands, of which a text has a few.
    likely = (identifier for identifier in identifiers if _is_likely(identifier, folded, digits))
    ordered = sorted(likely, key=lambda identifier: len(identifier.value), reverse=True)
    return re.compile("|".join(map(_mention, ordered)) or "(?!)", re.IGNORECASE)


def _is_likely(identifier: Identifier, folded: str, digits: str) -> bool:
    """Whether a text may mention an identifier, by its small letters, or by its digits."""
    kind, value = identifier.kind, identifier.value
    if kind == PHONE_NUMBER:
        return value.partition(";")[0].lstrip("+") in digits
    return (kind == EMAIL or len(value) >= SHORTEST_MENTION) and value.casefold() in folded


_SEPARATORS = r"[\s{}]*".format(re.escape("().-/" + "".join(LIKE[sign] for sign in "().-/")))
"""What people write between the digits of a number."""


def _mention(identifier: Identifier) -> str:
    """An identifier as people write it: a phone number in groups of digits, all else in any case."""
    kind, value = identifier.kind, identifier.value
    if kind == EMAIL:
        return rf"(?<![\w.%+-]){re.escape(value)}(?![\w-]|\.\w)"
    if kind != PHONE_NUMBER:
        return rf"(?<!\w){re.escape(value)}(?!\w)"
    number, extension, digits = value.removeprefix("+").partition(";ext=")
    grouped = _SEPARATORS.join(map(re.escape, number))
    extended = rf"\s*(?:;ext=|x|ext\.?)\s*{re.escape(digits)}" if extension else ""
    return rf"(?<!\d)(?:\+|00)?{grouped}{extended}(?!\d)"


# A verb and its changes are gone through as documents, so that no field of theirs can be forgotten. An identifier is
# a list of two texts there, and there is no other such list; those of contacts stand under the names of their kinds.


def _document(part: Verb | Changes) -> Any:
    return msgspec.to_builtins(part, builtin_types=(datetime,))


def _identifiers(document: Any) -> Iterable[Identifier]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name in BUILT_IN and isinstance(value, str):
                yield Identifier(name, value)
            else:
                yield from _identifiers(value)
    elif _is_identifier(document):
        yield Identifier(*document)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _identifiers(value)


def _replaced(document: Any, values: Mapping[Identifier, str]) -> Any:
    if isinstance(document, dict):
        return {
            name: values.get(Identifier(name, value), value)
            if name in BUILT_IN and isinstance(value, str)
            else _replaced(value, values)
            for name, value in document.items()
        }
    if _is_identifier(document):
        kind, value = document
        return [kind, values.get(Identifier(kind, value), value)]
    if isinstance(document, list | tuple):
        parts = [_replaced(value, values) for value in document]
        # Pairs, and what a contact carries, are in order; of one kind, a token stands elsewhere than the value.
        return sorted(parts) if all(map(_is_identifier, parts)) else parts
    return document


def _is_identifier(document: Any) -> bool:
    return isinstance(document, list | tuple) and len(document) == 2 and all(isinstance(text, str) for text in document)
