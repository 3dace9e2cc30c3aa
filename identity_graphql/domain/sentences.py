"""Sentences for people: what an event did, why two nodes are one customer.

Those about events name contacts and events by their numbers, never by values.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from identity_graphql.domain.contacts import called
from identity_graphql.domain.events import Event, Outcome, VerbEvent
from identity_graphql.domain.explain import Explanation, Step, StepKind
from identity_graphql.domain.identifiers import BUILT_IN
from identity_graphql.domain.state import Node
from identity_graphql.domain.verbs import (
    AcceptWithheld,
    BanLink,
    BlockIdentifier,
    DeleteContact,
    Erase,
    MergeClusters,
    RejectWithheld,
    RestoreContact,
    SplitCluster,
    UnbanLink,
    UnblockIdentifier,
    Verb,
)
from identity_graphql.domain.warnings import a_kind, forbidding


def summary(event: Event) -> str:
    """Returns what an event did. Without values: they stand beside it."""
    if isinstance(event, VerbEvent):
        return f"{event.actor}: {_verb(event.verb)}"
    home = called(event.primary_id)
    new = called(event.contact_id or 0)
    if event.outcome is Outcome.CREATED:
        return f"a new customer, {new}"
    if event.outcome is Outcome.LINKED:
        older = ", ".join(called(demotion.id) for demotion in event.demoted)
        return f"{older} was linked to {new}, which is older" if older else f"{new} was linked to {home}"
    if event.outcome is Outcome.MERGED:
        younger = " and ".join(called(demotion.id) for demotion in event.demoted)
        several = len(event.demoted) > 1
        merged = f"the cluster{'s' * several} of {younger} {'were' if several else 'was'} merged into that of {home}"
        return merged if event.contact_id is None else f"{merged}, with {new}"
    if event.outcome is Outcome.WITHHELD:
        there = " and ".join(f"that of {called(contact_id)}" for contact_id in event.kept_from)
        why = " and ".join(dict.fromkeys(forbidding(kept) for kept in event.kept_back))
        forbid = "forbid" if " and " in why else "forbids"
        return f"a link of the cluster of {home}{there and f' to {there}'} was withheld: {why} {forbid} it"
    kinds = " and ".join(dict.fromkeys(a_kind(identifier.kind) for identifier in event.identifiers))
    return f"{kinds} of the cluster of {home} were seen together for the first time"


def _verb(verb: Verb) -> str:
    match verb:
        case MergeClusters():
            return f"contacts {verb.one} and {verb.other} are one customer"
        case SplitCluster():
            return f"took {_contacts(verb.contact_ids)} out of a cluster"
        case BanLink():
            return f"never link contacts {verb.one} and {verb.other}"
        case UnbanLink():
            on = "on a pair" if verb.contacts is None else f"between {_contacts(verb.contacts, joined=' and ')}"
            return f"lifted the ban {on}"
        case AcceptWithheld():
            return "accepted a pair that was withheld"
        case RejectWithheld():
            return "rejected a pair that was withheld"
        case DeleteContact():
            return f"deleted contact {verb.contact_id}"
        case RestoreContact():
            return f"restored contact {verb.contact_id}"
        case Erase():
            values = "an identifier" if len(verb.identifiers) == 1 else f"{len(verb.identifiers)} identifiers"
            return f"erased {values}" + (f" and {_contacts(verb.contact_ids)}" if verb.contact_ids else "")
        case BlockIdentifier():
            retracted = ", and took back what it had linked" if verb.retract else ""
            return f"blocked {a_kind(verb.identifier.kind)}{retracted}"
        case UnblockIdentifier():
            return f"let {a_kind(verb.identifier.kind)} count again"
        case _:
            return f"took event {verb.event} back"


def step(taken: Step) -> str:
    """Returns one step of a chain of evidence, with the values that it goes by."""
    one, other = _named(taken.source), _named(taken.target)
    event = taken.event
    when = "" if event is None else f" on {event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC (event {event.seq})"
    if taken.kind is StepKind.PAIR:
        return f"{one} and {other} were seen together{when}"
    if taken.kind is StepKind.CONTACT:
        contact, identifier = (one, other) if isinstance(taken.source, int) else (other, one)
        return f"{contact} brought {identifier}{when}"
    if not isinstance(event, VerbEvent):
        return f"a steward linked {one} and {other}{when}"
    why = f": {event.reason}" if event.reason else ""
    if isinstance(event.verb, SplitCluster):
        return f"{event.actor} left {one} and {other} together in a split{when}{why}"
    return f"{event.actor} linked {one} and {other}{when}{why}"


def _named(node: Node) -> str:
    """An email and a phone number are known by their looks; of others the kind says what they are."""
    if isinstance(node, int):
        return f"contact {node}"
    return node.value if node.kind in BUILT_IN else f"{node.kind} {node.value}"


def explanation(explained: Explanation) -> list[str]:
    """Returns why two nodes are one customer, a sentence for every step; or what keeps them apart."""
    if explained.chain is not None:
        return [step(taken) for taken in explained.chain.steps]
    between, undone_by = explained.between, explained.history.undone_by
    found = [f"contacts {a} and {b} are banned from each other (event {seq})" for a, b, seq in between.bans]
    found += [
        f"a pair of theirs waits behind a ban (event {withheld.seq})"
        if explained.history.withholds(pair)
        else f"a pair of theirs was withheld by the limit of the kind {withheld.limit_kind} (event {withheld.seq})"
        if withheld.limit_kind is not None
        else f"a pair of theirs waits for a decision: nothing withholds it any more (event {withheld.seq})"
        for pair, withheld in between.withheld
    ]
    found += [
        f"what linked them (event {event.seq}) was undone (event {undone_by[event.seq]})" for event in between.undone
    ]
    return found or ["no evidence connects them"]


def _contacts(contact_ids: Sequence[int], *, joined: str = ", ") -> str:
    return f"contact{'s' if len(contact_ids) > 1 else ''} {joined.join(map(str, contact_ids))}"
