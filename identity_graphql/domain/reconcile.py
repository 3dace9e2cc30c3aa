"""The one decision: what a sequence of requests changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.contacts import PROVISIONAL, Cluster, Contact
from identity_graphql.domain.counts import Counts, counts_of, is_small
from identity_graphql.domain.events import Demotion, IdentifyEvent, Outcome
from identity_graphql.domain.identifiers import Details, Identifier, columns_of, pairs_of
from identity_graphql.domain.joining import Joining, KeptBack, everything, joining, pairs_with, withheld_pairs
from identity_graphql.domain.kinds import NO_KINDS_DECLARED, Kinds
from identity_graphql.domain.state import Bond, Pair
from identity_graphql.domain.warnings import Warning, WarningCode, kept_apart

TICK = timedelta(microseconds=1)


class Request(Struct, frozen=True):
    """One `identify`: what it says, the normalisation that read it, and the HTTP request it came with."""

    details: Details
    norm: str
    request_id: str | None = None


def outcome_of(joining: Joining, *, fresh: bool, told: bool, withheld: bool) -> Outcome:
    """What a request comes to.

    ``fresh``: nobody has one of those that join; ``told``: two of these were never seen together; ``withheld``: a pair
    is kept back for the first time.
    """
    if joining.kept_back:
        taught = fresh or told or withheld or len(joining.homes) > 1
        return Outcome.WITHHELD if taught else Outcome.UNCHANGED
    if not joining.homes:
        return Outcome.CREATED
    if len(joining.homes) > 1:
        return Outcome.MERGED
    if fresh:
        return Outcome.LINKED
    return Outcome.OBSERVED if told else Outcome.UNCHANGED


class CountRow(Struct, frozen=True):
    """How many values of a kind a cluster has now (`counts`); None: so few that it is not kept any more."""

    primary_id: int
    kind: str
    count: int | None


def differing_counts(primary_id: int, before: Counts | None, after: Counts | None) -> list[CountRow]:
    """Returns the rows of a cluster that changed; None where it was not there yet, or is no longer."""
    old, new = before or {}, after or {}
    if old == new:
        return []
    return [CountRow(primary_id, kind, new.get(kind)) for kind in {*old, *new} if old.get(kind) != new.get(kind)]


class Found(Struct, frozen=True):
    """What the database knew at one moment about the identifiers of a batch."""

    clusters: tuple[Cluster, ...]
    """every cluster that any of the identifiers belongs to, whole"""
    pairs: frozenset[Pair]
    """those of the batch's pairs that were seen before"""
    now: datetime
    """the database's clock"""
    withheld: Mapping[Pair, bool] = {}
    """those of the batch's pairs that were kept back before; whether the pair itself is banned"""
    any_ban: bool = False
    """whether there is any ban anywhere"""
    bans: frozenset[Bond] = frozenset()
    """contacts of these clusters that are banned from each other; looked up only where clusters are to be joined"""
    blocked: frozenset[Identifier] = frozenset()
    """those of the identifiers that count as not given"""


class Numbers(Struct, frozen=True):
    """What the database gave out when a plan was written."""

    ids: Mapping[int, int]
    """of the new contacts, by their provisional ones"""
    seqs: Sequence[int]
    """of the events, in the order of their requests"""


class Decision(Struct, frozen=True):
    """What one request came to: the cluster as it is after it, and what it changed there."""

    request: Request
    outcome: Outcome
    cluster: Cluster
    contact: Contact | None = None
    demoted: tuple[Contact, ...] = ()
    event: IdentifyEvent | None = None
    kept_back: tuple[KeptBack, ...] = ()
    """what a ban or a limit keeps apart from the cluster"""
    exceeded: tuple[str, ...] = ()
    """kinds of which the cluster has more values now than their limit"""
    new_pairs: tuple[Pair, ...] = ()
    """what is evidence from now on"""
    believed: tuple[Pair, ...] = ()
    """those of them that were kept back before"""
    new_withheld: tuple[tuple[Pair, str | None], ...] = ()
    """what is kept back from now on, each with the kind whose limit does so; None: a ban does"""

    @property
    def withheld(self) -> bool:
        """Whether something of it is kept apart from the cluster."""
        return bool(self.kept_back)

    @property
    def warnings(self) -> tuple[Warning, ...]:
        """What its sender should know."""
        ignored, blocked = self.request.details.ignored, self.request.details.blocked
        if not (ignored or blocked or self.kept_back or self.exceeded):
            return ()
        warnings = [Warning(WarningCode.IGNORED_VALUE, value.field, value.message) for value in ignored]
        for field in blocked:
            message = f"{field} has a value that is blocked; it counts as not given"
            warnings.append(Warning(WarningCode.BLOCKED_VALUE, field, message))
        if self.kept_back:
            message = kept_apart(self.request.details.identifiers, self.kept_back)
            warnings.append(Warning(WarningCode.LINK_WITHHELD, None, message))
        for kind in self.exceeded:
            message = f"The cluster has more values of the kind {kind} now than the limit allows."
            warnings.append(Warning(WarningCode.LIMIT_EXCEEDED, kind, message))
        return tuple(warnings)

    def renumbered(self, ids: Mapping[int, int], seq: int) -> Self:
        """The same decision after the database gave out the real ids, and its event's number if it has an event."""
        if not ids:
            return self if self.event is None else replace(self, event=replace(self.event, seq=seq))
        return replace(
            self,
            cluster=self.cluster.renumbered(ids),
            contact=self.contact and self.contact.renumbered(ids),
            demoted=tuple(contact.renumbered(ids) for contact in self.demoted),
            event=self.event and self.event.renumbered(ids, seq),
        )


class Swap(Struct, frozen=True):
    """The compare-and-swap of one cluster: it must still have the version that was seen.

    The version stays as it is where the cluster only had a say: it holds the other end of what a ban withholds.
    """

    primary_id: int
    seen: int
    version: int
    changed_at: datetime


class Plan(Struct, frozen=True):
    """What a batch changes, as rows: the difference between the tables before and after it."""

    decisions: tuple[Decision, ...]
    swaps: tuple[Swap, ...]
    """in id order"""
    contacts: tuple[Contact, ...]
    """new ones, in the order of their requests, with provisional ids"""
    relinks: tuple[Contact, ...]
    """existing ones that point at another primary now"""
    counts: tuple[CountRow, ...] = ()
    """of the clusters that are large, or no longer are"""
    seen: frozenset[tuple[int, int]] = frozenset()
    """the found clusters: primary and version"""
    withheld: frozenset[Pair] = frozenset()
    """the found pairs that had been kept back"""

    @property
    def events(self) -> tuple[IdentifyEvent, ...]:
        """In the order of the requests. No event: nothing is written."""
        return tuple(decision.event for decision in self.decisions if decision.event is not None)

    @property
    def new_pairs(self) -> list[tuple[Pair, int]]:
        """What is evidence from now on, each with the place of the event that says so."""
        return [(pair, place) for place, decision in self._told for pair in decision.new_pairs]

    @property
    def believed(self) -> list[Pair]:
        """Those of them that had been kept back when it was found, in order."""
        return sorted(pair for _, decision in self._told for pair in decision.believed if pair in self.withheld)

    @property
    def new_withheld(self) -> list[tuple[Pair, int, str | None]]:
        """What is kept back from now on, in order, with the place of its event and the kind whose limit is why."""
        believed = {pair: place for place, decision in self._told for pair in decision.believed}
        return sorted(
            (pair, place, limit_kind)
            for place, decision in self._told
            for pair, limit_kind in decision.new_withheld
            if believed.get(pair, -1) < place
        )

    @property
    def _told(self) -> Iterator[tuple[int, Decision]]:
        return enumerate(decision for decision in self.decisions if decision.event is not None)

    @property
    def merges(self) -> bool:
        """Whether clusters are joined, or would be but for a limit: then it matters who is banned from whom."""
        return any(
            (d.event is not None and (d.outcome is Outcome.MERGED or d.event.demoted))
            or any(kept.limit_kind is not None for kept in d.kept_back)
            for d in self.decisions
        )

    def stands(self, decision: Decision) -> bool:
        """Whether a decision holds even if this plan is never written: it rests on what was found alone."""
        return decision.event is None and (decision.cluster.primary.id, decision.cluster.version) in self.seen

    def renumbered(self, numbers: Numbers) -> tuple[Decision, ...]:
        """The decisions after the database gave out the real ids, and the numbers of their events."""
        seqs = iter(numbers.seqs)
        return tuple(
            decision.renumbered(numbers.ids, 0 if decision.event is None else next(seqs)) for decision in self.decisions
        )


def reconcile(batch: Sequence[Request], found: Found, kinds: Kinds = NO_KINDS_DECLARED) -> Plan:
    """Decide what a sequence of requests changes, given every cluster that any of them touches.

    Each request sees what the earlier ones decided; the answers are those of one request at a time. The
    oldest primary wins, whatever the order of the requests. A request that teaches nothing changes nothing. Of each
    there must be something that counts (`counting`).
    """
    world = _World(found, kinds)
    decisions = tuple(world.decide(request, found.now + n * TICK) for n, request in enumerate(batch))
    return world.plan(decisions)


def counting(request: Request, found: Found) -> Request | None:
    """Returns a request as far as it counts: without what is blocked. None: nothing is left of it."""
    if not found.blocked:
        return request
    details = request.details.without(found.blocked)
    if details is request.details:
        return request
    return replace(request, details=details) if details.identifiers else None


class _World:
    """The touched clusters as they are in the middle of a batch."""

    def __init__(self, found: Found, kinds: Kinds) -> None:
        self.found = found
        self.kinds = kinds
        self.is_limited = bool(kinds.limits)
        self.clusters = {cluster.primary.id: cluster for cluster in found.clusters}
        self.homes: dict[Identifier, int] = {}  # claimed identifier -> primary, at the time of the claim
        self.merged: dict[int, int] = {}  # demoted primary -> the primary that took it over
        self.pairs = set(found.pairs)
        self.withheld = dict(found.withheld)
        self.relied: set[int] = set()  # clusters that decided, though nothing of theirs changes
        self.created = 0
        for cluster in found.clusters:
            for contact in cluster.contacts:
                self._claim(contact, cluster.primary.id)

    def decide(self, request: Request, now: datetime) -> Decision:
        details = request.details
        homes = [self.home(identifier) for identifier in details.identifiers]
        if self.found.bans or self.withheld or self.is_limited:
            joined = joining(details.identifiers, self, self.kinds)
        else:
            joined = everything(details.identifiers, homes)
        pairs = pairs_of(joined.joined)
        new_pairs = tuple(pair for pair in pairs if pair not in self.pairs)
        new_withheld = self._newly_withheld(joined) if joined.kept_back else ()
        new = [identifier for identifier in joined.joined if identifier not in self.homes]
        fresh = bool(new)
        outcome = outcome_of(joined, fresh=fresh, told=bool(new_pairs), withheld=bool(new_withheld))
        touched = self._by_seniority(joined.homes)
        if outcome is Outcome.UNCHANGED:
            return Decision(request, outcome, touched[0], kept_back=joined.kept_back)

        kept_from: tuple[int, ...] = ()
        if joined.kept_back:
            apart = {kept.identifier for kept in joined.kept_back}
            elsewhere = {home for i, home in zip(details.identifiers, homes, strict=True) if i in apart}
            kept_from = tuple(sorted(home for home in elsewhere if home is not None and home not in joined.homes))
            self.relied.update(kept_from, joined.homes)
        at = max([now, *(cluster.changed_at + TICK for cluster in touched)])
        contact: Contact | None = None
        if fresh:
            born = at if details.occurred_at is None else min(details.occurred_at, at)
            contact = self._contact(joined.joined, new, born, at)
        if not touched:
            assert contact is not None, "what nobody has makes a contact"
            contact = replace(contact, version=1, changed_at=at)
            cluster = Cluster((contact,))
        elif contact is not None or len(touched) > 1:
            oldest, *younger = touched
            cluster = oldest.united(younger, contact, at)
            if contact is not None:
                last = cluster.contacts[-1]
                contact = last if last.id == contact.id else next(c for c in cluster.contacts if c.id == contact.id)
        else:
            cluster = touched[0].observed(at)

        primary_id = cluster.primary.id
        demoted: tuple[Contact, ...] = ()
        if touched and (len(touched) > 1 or touched[0].primary.id != primary_id):
            gone = {side.primary.id for side in touched} - {primary_id}
            demoted = tuple(member for member in cluster.contacts if member.id in gone)
        for member in demoted:
            self.merged[member.id] = primary_id
            del self.clusters[member.id]
        self.clusters[primary_id] = cluster
        if contact is not None:
            self._claim(contact, primary_id)
        believed = tuple(pair for pair in new_pairs if pair in self.withheld) if self.withheld else ()
        self.pairs.update(new_pairs)
        for pair in believed:
            del self.withheld[pair]
        if new_withheld:
            self.withheld.update((pair, False) for pair, _ in new_withheld)
        event = self._event(request, joined, outcome, at, contact, cluster, demoted, kept_from)
        return Decision(
            request,
            outcome,
            cluster,
            contact,
            demoted,
            event,
            kept_back=joined.kept_back,
            exceeded=joined.exceeded,
            new_pairs=new_pairs,
            believed=believed,
            new_withheld=new_withheld,
        )

    def _newly_withheld(self, joined: Joining) -> tuple[tuple[Pair, str | None], ...]:
        return tuple(
            (pair, limit_kind)
            for pair, limit_kind in withheld_pairs(joined.joined, joined.kept_back)
            if pair not in self.withheld and pair not in self.pairs
        )

    def _event(
        self,
        request: Request,
        joined: Joining,
        outcome: Outcome,
        at: datetime,
        contact: Contact | None,
        cluster: Cluster,
        demoted: Sequence[Contact],
        kept_from: tuple[int, ...],
    ) -> IdentifyEvent:
        details = request.details
        email, phone_number, others = columns_of(details.identifiers)
        is_new = contact is not None and cluster.primary.id == contact.id
        return IdentifyEvent(
            at=at,
            outcome=outcome,
            email=email,
            phone_number=phone_number,
            raw=details.raw,
            norm=request.norm,
            contact_id=contact.id if contact else None,
            primary_id=cluster.primary.id,
            demoted=tuple(Demotion(c.id, c.version - 1, c.version) for c in demoted) if demoted else (),
            version_before=0 if is_new else cluster.version - 1,
            version_after=cluster.version,
            request_id=request.request_id,
            others=others,
            kept_back=joined.kept_back,
            kept_from=kept_from,
            exceeded=joined.exceeded,
            source=details.source,
            occurred_at=details.occurred_at,
        )

    def plan(self, decisions: tuple[Decision, ...]) -> Plan:
        """The rows that differ from what was found."""
        before = {contact.id: contact for cluster in self.found.clusters for contact in cluster.contacts}
        after = [contact for cluster in self.clusters.values() for contact in cluster.contacts]
        changed = [(before[contact.id], contact) for contact in after if contact.id in before]
        swaps = [
            Swap(new.id, old.version, new.version, new.changed_at)
            for old, new in changed
            if (new.version != old.version or new.id in self.relied) and new.changed_at is not None
        ]
        return Plan(
            decisions=decisions,
            swaps=tuple(sorted(swaps, key=lambda swap: swap.primary_id)),
            contacts=tuple(sorted((c for c in after if c.id >= PROVISIONAL), key=lambda contact: contact.id)),
            relinks=tuple(new for old, new in changed if new.linked_id != old.linked_id),
            counts=self._counts(),
            seen=frozenset((cluster.primary.id, cluster.version) for cluster in self.found.clusters),
            withheld=frozenset(self.found.withheld),
        )

    def _counts(self) -> tuple[CountRow, ...]:
        """The counts that differ from those that were found."""
        before = {cluster.primary.id: cluster for cluster in self.found.clusters}
        rows: list[CountRow] = []
        for primary_id in {*before, *self.clusters}:
            old, new = before.get(primary_id), self.clusters.get(primary_id)
            if old is new or ((old is None or is_small(old)) and (new is None or is_small(new))):
                continue
            counts = (None if cluster is None else counts_of(cluster) for cluster in (old, new))
            rows += differing_counts(primary_id, *counts)
        return tuple(sorted(rows, key=lambda row: (row.primary_id, row.kind))) if rows else ()

    def home(self, identifier: Identifier) -> int | None:
        """The primary of the cluster that has this identifier now; None if nobody has it."""
        home = self.homes.get(identifier)
        while home in self.merged:
            home = self.merged[home]
        return home

    def _by_seniority(self, primaries: Collection[int]) -> list[Cluster]:
        """The clusters of these primaries, the one with the oldest first."""
        clusters = [self.clusters[primary_id] for primary_id in primaries]
        return clusters if len(clusters) < 2 else sorted(clusters, key=lambda cluster: cluster.primary.seniority)

    def _claim(self, contact: Contact, primary_id: int) -> None:
        for identifier in contact.claims:
            self.homes[identifier] = primary_id

    def forbids(self, joined: Sequence[Identifier], homes: Collection[int], identifier: Identifier) -> bool:
        """Whether a ban keeps an identifier apart from these: on the pair itself, or between their clusters."""
        if self.withheld and any(self.withheld.get(pair) for pair in pairs_with(identifier, joined)):
            return True
        home = self.home(identifier)
        if not self.found.bans or home is None:
            return False
        return any(self._banned(self.clusters[home], self.clusters[other]) for other in homes if other != home)

    def count(self, home: int, kind: str) -> int:
        """How many values of a kind a cluster has."""
        return sum(claim.kind == kind for contact in self.clusters[home].contacts for claim in contact.claims)

    def _banned(self, one: Cluster, other: Cluster) -> bool:
        sides = ({contact.id for contact in cluster.contacts} for cluster in (one, other))
        here, there = sides
        return any((a in here and b in there) or (a in there and b in here) for a, b in self.found.bans)

    def _contact(
        self, carried: Sequence[Identifier], new: Sequence[Identifier], born: datetime, at: datetime
    ) -> Contact:
        """A new contact; it claims what nobody had before."""
        email, phone_number, others = columns_of(carried)
        claimed = columns_of(new)
        self.created += 1
        contact = Contact(
            id=PROVISIONAL + self.created,
            email=email,
            phone_number=phone_number,
            linked_id=None,
            created_at=born,
            updated_at=at,
            claims_email=email is not None and email == claimed[0],
            claims_phone_number=phone_number is not None and phone_number == claimed[1],
            others=others,
        )
        return contact.claiming(new) if others else contact
