"""What is known at one moment: the rows of the tables, for a few clusters or for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.contacts import Cluster, Contact
from identity_graphql.domain.identifiers import Identifier

Pair = tuple[Identifier, Identifier]
"""Two identifiers that were seen together, in order (`identifiers.pairs_of`)."""
Node = int | Identifier
"""A contact, by its id, or an identifier."""
Bond = tuple[int, int]
"""Two contacts, the smaller id first."""
Ban = tuple[int, int, int]
"""Two contacts that are banned from each other, the smaller id first, and the event that decided so."""


def bond(one: int, other: int) -> Bond:
    """Two contacts, whichever way round they are given."""
    return (one, other) if one < other else (other, one)


class Withheld(Struct, frozen=True):
    """A pair that is not evidence: the event that said so, and whether the pair itself is banned.

    If it is not, it waits: the limit of ``limit_kind`` stood in its way, or (None) a ban between two contacts.
    """

    seq: int
    banned: bool = False
    limit_kind: str | None = None


class WithheldFilter(Struct, frozen=True):
    """Which of the pairs that wait are wanted: kept back by a limit, by a ban, or either; by the limit of one kind."""

    by_limit: bool | None = None
    limit_kind: str | None = None


class State:
    """The rows by their keys. What happens changes it in place; ``copy`` before, to keep how it was.

    ``links`` are a steward's: two contacts that belong together whatever the evidence says. ``parked`` is the
    evidence that went with a deleted contact, and comes back with it: (contact, pair) -> event.
    Of contacts, who claims what is in ``claims`` alone. ``blocked`` counts as not given where a request brings it; the
    event that decided so.
    """

    __slots__ = ("bans", "blocked", "claims", "contacts", "links", "members", "pairs", "parked", "withheld")

    def __init__(self) -> None:
        self.contacts: dict[int, Contact] = {}
        self.members: dict[int, set[int]] = {}  # primary -> the live contacts of its cluster, itself among them
        self.claims: dict[Identifier, int] = {}
        self.pairs: dict[Pair, int] = {}
        self.withheld: dict[Pair, Withheld] = {}
        self.links: dict[Bond, int] = {}
        self.bans: dict[Bond, int] = {}
        self.parked: dict[tuple[int, Pair], int] = {}
        self.blocked: dict[Identifier, int] = {}

    def copy(self) -> State:
        """The same rows, to be changed apart."""
        twin = State()
        twin.contacts = dict(self.contacts)
        twin.members = {primary_id: set(members) for primary_id, members in self.members.items()}
        twin.claims = dict(self.claims)
        twin.pairs = dict(self.pairs)
        twin.withheld = dict(self.withheld)
        twin.links = dict(self.links)
        twin.bans = dict(self.bans)
        twin.parked = dict(self.parked)
        twin.blocked = dict(self.blocked)
        return twin

    # -- looking

    def home(self, node: Node) -> int | None:
        """Returns the primary of the cluster that has an identifier or a live contact; None if there is none."""
        if isinstance(node, Identifier):
            claimant = self.claims.get(node)
            return None if claimant is None else self.primary_of(claimant)
        return self.primary_of(node) if self.is_live(node) else None

    def primary_of(self, contact_id: int) -> int:
        """The primary of a live contact."""
        return self.contacts[contact_id].linked_id or contact_id

    def is_live(self, contact_id: int) -> bool:
        contact = self.contacts.get(contact_id)
        return contact is not None and contact.deleted_at is None

    def claimed(self, contact: Contact) -> tuple[Identifier, ...]:
        """The identifiers that a contact claims, of those that it carries."""
        return tuple(i for i in contact.carried if self.claims.get(i) == contact.id)

    def oldest(self, contact_ids: Iterable[int]) -> int:
        """The contact that is a primary where these are a cluster."""
        return min(contact_ids, key=lambda contact_id: self.contacts[contact_id].seniority)

    def cluster(self, primary_id: int) -> Cluster:
        """The cluster as it is answered."""
        members = (self.contacts[contact_id] for contact_id in self.members[primary_id])
        return Cluster.of(self._claiming(contact) for contact in members)

    def clusters(self) -> Iterator[Cluster]:
        return map(self.cluster, sorted(self.members))

    def banned(self, one: int, other: int) -> Bond | None:
        """A ban between two clusters, named by their primaries: the contacts that it binds. None if there is none."""
        for ban in self.bans:
            a, b = ban
            if self.is_live(a) and self.is_live(b) and {self.primary_of(a), self.primary_of(b)} == {one, other}:
                return ban
        return None

    def parts(self, contact_ids: Iterable[int]) -> list[set[int]]:
        """These live contacts by what connects them: live evidence between what they claim, and a steward's links.

        A contact that claims nothing (it was restored, and others have what it carries) goes with those who do.
        """
        within = set(contact_ids)
        parent = {contact_id: contact_id for contact_id in within}

        def root(contact_id: int) -> int:
            while parent[contact_id] != contact_id:
                parent[contact_id] = parent[parent[contact_id]]
                contact_id = parent[contact_id]
            return contact_id

        for contact_id in within:
            contact = self.contacts[contact_id]
            if not self.claimed(contact):
                claimant = next((c for i in contact.carried if (c := self.claims.get(i)) in within), None)
                if claimant is not None:
                    parent[root(contact_id)] = root(claimant)
        for pair in self.pairs:
            a, b = (self.claims.get(identifier) for identifier in pair)
            if a in parent and b in parent:
                parent[root(a)] = root(b)
        for a, b in self.links:
            if a in parent and b in parent:
                parent[root(a)] = root(b)
        found: dict[int, set[int]] = {}
        for contact_id in within:
            found.setdefault(root(contact_id), set()).add(contact_id)
        return sorted(found.values(), key=lambda part: self.contacts[self.oldest(part)].seniority)

    # -- changing

    def put(self, contact: Contact) -> None:
        """Set a row, a new or a changed one."""
        before = self.contacts.get(contact.id)
        if before is not None and before.deleted_at is None:
            self._leave(before.linked_id or before.id, contact.id)
        self.contacts[contact.id] = contact
        if contact.deleted_at is None:
            self.members.setdefault(contact.linked_id or contact.id, set()).add(contact.id)

    def gather(self, contact_ids: Iterable[int], at: datetime) -> int:
        """Make these contacts one cluster, its oldest the primary; the primary. Rows that stay as they are, stay."""
        contact_ids = list(contact_ids)
        primary_id = self.oldest(contact_ids)
        for contact_id in contact_ids:
            contact = self.contacts[contact_id]
            linked_id = None if contact_id == primary_id else primary_id
            if contact.linked_id != linked_id:
                self.put(replace(contact, linked_id=linked_id, updated_at=at))
        return primary_id

    def join(self, one: int, other: int, at: datetime) -> int:
        """Make one cluster of two, named by their primaries: the older primary stays; it."""
        older = self.oldest((one, other))
        younger = other if older == one else one
        for contact_id in list(self.members[younger]):
            self.put(replace(self.contacts[contact_id], linked_id=older, updated_at=at))
        return older

    def _leave(self, primary_id: int, contact_id: int) -> None:
        members = self.members[primary_id]
        members.discard(contact_id)
        if not members:
            del self.members[primary_id]

    def _claiming(self, contact: Contact) -> Contact:
        return contact.claiming(self.claimed(contact))


def divided(state: State) -> dict[int, State]:
    """One state for every cluster, by primary: its rows, and what is withheld from it or banned."""
    parts: dict[int, State] = {}
    for primary_id, members in state.members.items():
        part = parts[primary_id] = State()
        part.members[primary_id] = set(members)
        part.contacts = {contact_id: state.contacts[contact_id] for contact_id in members}
    for identifier, claimant in state.claims.items():
        parts[state.primary_of(claimant)].claims[identifier] = claimant
    for pair, seq in state.pairs.items():
        parts[state.primary_of(state.claims[pair[0]])].pairs[pair] = seq
    for pair, withheld in state.withheld.items():
        for home in {state.home(end) for end in pair} - {None}:
            parts[home or 0].withheld[pair] = withheld
    for bound, seq in state.links.items():
        for home in {state.primary_of(contact_id) for contact_id in bound if state.is_live(contact_id)}:
            parts[home].links[bound] = seq
    for bound, seq in state.bans.items():
        for home in {state.primary_of(contact_id) for contact_id in bound if state.is_live(contact_id)}:
            parts[home].bans[bound] = seq
    return parts
