"""The one decision: what a sequence of requests changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.contacts import PROVISIONAL, Cluster, Contact
from identity_graphql.domain.events import Demotion, IdentifyEvent, Outcome
from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, Details, Identifier, identifiers
from identity_graphql.domain.state import Bond, Pair
from identity_graphql.domain.warnings import Warning, WarningCode

TICK = timedelta(microseconds=1)


class Request(Struct, frozen=True):
    """One `identify`: what it says, the normalisation that read it, and the HTTP request it came with."""

    details: Details
    norm: str
    request_id: str | None = None


def outcome_of(homes: Sequence[int | None], *, seen: bool, withheld: bool, barred: bool) -> Outcome:
    """What a request comes to.

    ``homes``: the cluster that has each of its identifiers, the email's first, None for one that nobody has;
    ``seen``: its pair is evidence already, or it has only one identifier; ``barred``: a ban forbids the pair, or
    stands between the two clusters; ``withheld``: it was kept back before.
    """
    clusters = {home for home in homes if home is not None}
    if barred:
        return Outcome.UNCHANGED if withheld and homes[0] is not None else Outcome.WITHHELD
    if not clusters:
        return Outcome.CREATED
    if len(clusters) > 1:
        return Outcome.MERGED
    if None in homes:
        return Outcome.LINKED
    return Outcome.UNCHANGED if seen else Outcome.OBSERVED


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
    withheld: bool = False
    """a ban forbids the link: the cluster is the email's"""
    kept_from: int | None = None
    """where it forbids it for the first time: the primary of the phone number's cluster, None if it has none"""

    @property
    def warnings(self) -> tuple[Warning, ...]:
        """What its sender should know."""
        ignored = self.request.details.ignored
        if not (ignored or self.withheld):
            return ()
        warnings = [Warning(WarningCode.IGNORED_VALUE, value.field, value.message) for value in ignored]
        if self.withheld:
            message = "A ban keeps this email and this phone number apart; the email's cluster is answered."
            warnings.append(Warning(WarningCode.LINK_WITHHELD, None, message))
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
            kept_from=self.kept_from and ids.get(self.kept_from, self.kept_from),
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
    seen: frozenset[tuple[int, int]] = frozenset()
    """the found clusters: primary and version"""
    withheld: frozenset[Pair] = frozenset()
    """the found pairs that had been kept back"""

    @property
    def events(self) -> tuple[IdentifyEvent, ...]:
        """In the order of the requests. No event: nothing is written."""
        return tuple(decision.event for decision in self.decisions if decision.event is not None)

    @property
    def merges(self) -> bool:
        """Whether clusters are joined: then it matters who is banned from whom."""
        return any(decision.outcome is Outcome.MERGED for decision in self.decisions)

    def stands(self, decision: Decision) -> bool:
        """Whether a decision holds even if this plan is never written: it rests on what was found alone."""
        return decision.event is None and (decision.cluster.primary.id, decision.cluster.version) in self.seen

    def renumbered(self, numbers: Numbers) -> tuple[Decision, ...]:
        """The decisions after the database gave out the real ids, and the numbers of their events."""
        seqs = iter(numbers.seqs)
        return tuple(
            decision.renumbered(numbers.ids, 0 if decision.event is None else next(seqs)) for decision in self.decisions
        )


def reconcile(batch: Sequence[Request], found: Found) -> Plan:
    """Decide what a sequence of requests changes, given every cluster that any of them touches.

    Each request sees what the earlier ones decided; the answers are those of one request at a time. The
    oldest primary wins, whatever the order of the requests. A request that teaches nothing changes nothing.
    """
    world = _World(found)
    decisions = tuple(world.decide(request, found.now + n * TICK) for n, request in enumerate(batch))
    return world.plan(decisions)


class _World:
    """The touched clusters as they are in the middle of a batch."""

    def __init__(self, found: Found) -> None:
        self.found = found
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
        details, pair = request.details, request.details.pair
        homes = [self._home(identifier) for identifier in details.identifiers]
        touched = self._by_seniority({home for home in homes if home is not None})
        withheld = pair in self.withheld
        barred = self.withheld.get(pair, False) if pair and self.withheld else False
        if self.found.bans and len(touched) > 1:
            barred = barred or self._banned(touched[0], touched[1])
        outcome = outcome_of(homes, seen=pair is None or pair in self.pairs, withheld=withheld, barred=barred)
        if barred:
            if outcome is Outcome.WITHHELD:
                self.relied.update(cluster.primary.id for cluster in touched)
            touched = [self.clusters[homes[0]]] if homes[0] is not None else []
        if outcome is Outcome.UNCHANGED:
            return Decision(request, outcome, touched[0], withheld=barred)

        at = max([now, *(cluster.changed_at + TICK for cluster in touched)])
        contact: Contact | None = None
        demoted: tuple[Contact, ...] = ()
        if outcome is Outcome.MERGED:
            oldest, younger = touched
            cluster = oldest.absorbed(younger, at)
            self.merged[younger.primary.id] = oldest.primary.id
            demoted = tuple(c for c in cluster.contacts if c.id == younger.primary.id)
        elif not touched:
            # Of a pair that is banned, the email is a customer by itself; the number waits.
            contact = self._contact(details.email, None if barred else details.phone_number, at)
            contact = replace(contact, version=1, changed_at=at)
            cluster = Cluster((contact,))
        elif outcome is Outcome.LINKED:
            cluster = touched[0].joined(self._contact(details.email, details.phone_number, at), at)
            contact = cluster.contacts[-1]
        else:
            cluster = touched[0].observed(at)

        primary_id = cluster.primary.id
        for gone in demoted:
            del self.clusters[gone.id]
        self.clusters[primary_id] = cluster
        if contact is not None:
            self._claim(contact, primary_id)
        if pair is not None and barred:
            self.withheld.setdefault(pair, False)
        elif pair is not None:
            self.pairs.add(pair)
            self.withheld.pop(pair, None)
        event = IdentifyEvent(
            at=at,
            outcome=outcome,
            email=details.email,
            phone_number=details.phone_number,
            raw=details.raw,
            norm=request.norm,
            contact_id=contact.id if contact else None,
            primary_id=primary_id,
            demoted=tuple(Demotion(c.id, c.version - 1, c.version) for c in demoted),
            version_before=cluster.version - 1,
            version_after=cluster.version,
            request_id=request.request_id,
        )
        kept_from = homes[1] if barred and homes[1] != primary_id else None
        return Decision(request, outcome, cluster, contact, demoted, event, withheld=barred, kept_from=kept_from)

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
            seen=frozenset((cluster.primary.id, cluster.version) for cluster in self.found.clusters),
            withheld=frozenset(self.found.withheld),
        )

    def _home(self, identifier: Identifier) -> int | None:
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

    def _banned(self, one: Cluster, other: Cluster) -> bool:
        sides = ({contact.id for contact in cluster.contacts} for cluster in (one, other))
        here, there = sides
        return any((a in here and b in there) or (a in there and b in here) for a, b in self.found.bans)

    def _contact(self, email: str | None, phone_number: str | None, at: datetime) -> Contact:
        """A new contact; it claims what nobody had before."""
        claims = {i.kind for i in identifiers(email, phone_number) if i not in self.homes}
        self.created += 1
        return Contact(
            id=PROVISIONAL + self.created,
            email=email,
            phone_number=phone_number,
            linked_id=None,
            created_at=at,
            updated_at=at,
            claims_email=EMAIL in claims,
            claims_phone_number=PHONE_NUMBER in claims,
        )
