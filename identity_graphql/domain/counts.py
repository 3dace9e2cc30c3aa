"""How large clusters are: the counts by which the largest, and those over a limit, are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from identity_graphql.domain.contacts import Cluster
from identity_graphql.domain.identifiers import BUILT_IN, Identifier
from identity_graphql.domain.state import State

CONTACTS = ""
"""In the place of a kind: how many contacts a cluster has."""

LEAST = 10
"""Contacts, emails or phone numbers of a cluster from which on they are counted: nearly all clusters have fewer."""
LEAST_OTHERS = 2
"""The same for values of the other kinds, which most customers have one of."""

Counts = Mapping[str, int]
"""By kind, how many values of it a cluster has; of its contacts under `CONTACTS`. Small ones are left out."""


def counts_of(cluster: Cluster) -> Counts:
    """Returns the counts of a cluster that are large enough to be kept."""
    if is_small(cluster):
        return {}
    return _large(cluster.size, (claim for contact in cluster.contacts for claim in contact.claims))


def is_small(cluster: Cluster) -> bool:
    """Returns whether a cluster has no count that is large enough to be kept, as can be seen at once."""
    contacts = cluster.contacts
    if len(contacts) >= LEAST:
        return False
    for contact in contacts:  # noqa: SIM110 - a generator costs more than all of it
        if contact.others:
            return False
    return True


def counts_in(state: State, primary_id: int) -> Counts:
    """Returns the same of a cluster of a state."""
    contacts = [state.contacts[contact_id] for contact_id in state.members[primary_id]]
    if len(contacts) < LEAST and not any(contact.others for contact in contacts):
        return {}
    return _large(len(contacts), (claim for contact in contacts for claim in state.claimed(contact)))


def least(kind: str) -> int:
    """Returns from which count on values of a kind, or contacts, are kept."""
    return LEAST if kind == CONTACTS or kind in BUILT_IN else LEAST_OTHERS


def _large(size: int, claims: Iterable[Identifier]) -> Counts:
    counts = Counter(identifier.kind for identifier in claims)
    counts[CONTACTS] = size
    return {kind: count for kind, count in counts.items() if count >= least(kind)}
