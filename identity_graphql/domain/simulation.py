"""What the requests of the log would have come to under other rules.

Two worlds take the requests in their order: one as they were read and judged then, one as they would be under the rules
to try. Stewards' verbs are left out of both. Nobody makes contacts and clusters for that: a world is a few numbers for
each contact, so that millions fit into memory.
"""

from __future__ import annotations

import heapq
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from identity_graphql.domain.identifiers import EMAIL, PHONE_NUMBER, RAW, Given, Identifier, Normalisation
from identity_graphql.domain.joining import KeptBack, everything, joining
from identity_graphql.errors import InvalidInput, Problem

NOBODY = -1
_LARGEST = 5
"""Clusters whose sizes are told."""
_NAMED = 10
"""Contacts of one example that are told by id."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Rules(Struct, frozen=True):
    """How requests are read and judged: the normalisation, with its kinds and their limits, and what is blocked."""

    normalisation: Normalisation
    blocked: frozenset[Identifier] = frozenset()


class LoggedRequest(Struct, frozen=True):
    """An event of a request: what was said, how that was read, and what was kept back."""

    seq: int
    contact_id: int
    """the contact that it made, or else the primary of the cluster that it ended in"""
    born_at: datetime
    identifiers: tuple[Identifier, ...]
    raw: Mapping[str, Any]
    kept_back: tuple[KeptBack, ...] = ()
    exceeded: tuple[str, ...] = ()


class Numbering:
    """The identifiers of the log, each with a number: they are kept once, whatever is made of them."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}
        self._count = 0

    def __call__(self, identifier: Identifier) -> int:
        """Returns the number of an identifier, from 0 on."""
        numbers = self._numbers.get(identifier.kind)
        if numbers is None:
            numbers = self._numbers[identifier.kind] = {}
        number = numbers.setdefault(identifier.value, self._count)
        if number == self._count:
            self._count += 1
        return number


class World:
    """Who is one customer: of every identifier a contact, and of every contact those that were joined with it.

    Contacts have numbers from 0 on, in the order in which they were made. A tree of them is a cluster; the smaller one
    is hung under the root of the larger one, and nothing is moved afterwards, so it also tells when.
    """

    def __init__(self, numbering: Numbering, limited: Iterable[str] = ()) -> None:
        self._numbering = numbering
        self._claims = array("i")  # of an identifier, by its number: the contact that brought it
        self._parents = array("i")
        self._since = array("q")  # the event that hung a contact under its parent
        self._sizes = array("i")  # of a root: the contacts of its cluster
        self._counts = {kind: array("i") for kind in limited}  # of a root: the values of its cluster
        self.born = array("q")
        self.clusters = 0

    @property
    def contacts(self) -> int:
        return len(self._parents)

    def claimant(self, identifier: Identifier) -> int:
        """Returns the contact that brought an identifier, or NOBODY."""
        number = self._numbering(identifier)
        return self._claims[number] if number < len(self._claims) else NOBODY

    # what `joining` asks

    def home(self, identifier: Identifier) -> int | None:
        """Returns the root of the cluster that has an identifier; None if nobody has it."""
        contact = self.claimant(identifier)
        return None if contact == NOBODY else self.root(contact)

    def forbids(self, joined: Sequence[Identifier], homes: Collection[int], identifier: Identifier) -> bool:
        """Nobody is banned from anybody, as stewards have no part in it."""
        return False

    def count(self, home: int, kind: str) -> int:
        """Returns how many values of a kind a cluster has."""
        return self._counts[kind][home]

    # what happens

    def take(self, seq: int, born: int, joined: Iterable[Identifier]) -> int:
        """One more request, whose identifiers all come together. Returns the contact that it made, or one of those
        that have them."""
        homes: list[int] = []
        fresh: list[Identifier] = []
        for identifier in joined:
            home = self.home(identifier)
            if home is None:
                fresh.append(identifier)
            elif home not in homes:
                homes.append(home)
        contact = homes[0] if homes else NOBODY
        if fresh:
            contact = self._made(born, fresh)
            homes.append(contact)
        root = homes[0]
        for home in homes[1:]:
            root = self._join(root, home, seq)
        return contact

    def root(self, contact: int) -> int:
        """Returns the contact that stands for the cluster of this one."""
        parents = self._parents
        while (parent := parents[contact]) != contact:
            contact = parent
        return contact

    def joined_by(self, one: int, other: int) -> int:
        """Returns the event that brought two contacts of one cluster together; 0 if they are the same."""
        seq = 0
        parents, since = self._parents, self._since
        while one != other:
            # Of the two, the one that was hung earlier is below; the last step is the one that matters.
            if parents[one] == one or (parents[other] != other and since[other] < since[one]):
                one, other = other, one
            seq, one = max(seq, since[one]), parents[one]
        return seq

    def size(self, root: int) -> int:
        """Returns how many contacts a cluster has."""
        return self._sizes[root]

    def roots(self) -> Iterable[int]:
        """Yields one contact of every cluster."""
        return (contact for contact, parent in enumerate(self._parents) if contact == parent)

    def _made(self, born: int, claims: Sequence[Identifier]) -> int:
        contact = len(self._parents)
        self._parents.append(contact)
        self._since.append(0)
        self._sizes.append(1)
        self.born.append(born)
        for counts in self._counts.values():
            counts.append(0)
        for identifier in claims:
            number = self._numbering(identifier)
            while number >= len(self._claims):
                self._claims.append(NOBODY)
            self._claims[number] = contact
            if identifier.kind in self._counts:
                self._counts[identifier.kind][contact] += 1
        self.clusters += 1
        return contact

    def _join(self, one: int, other: int, seq: int) -> int:
        """The root of what was two clusters."""
        if self._sizes[one] < self._sizes[other]:
            one, other = other, one
        self._parents[other] = one
        self._since[other] = seq
        self._sizes[one] += self._sizes[other]
        for counts in self._counts.values():
            counts[one] += counts[other]
        self.clusters -= 1
        return one


class Joined(Struct, frozen=True, rename="camel"):
    """Customers who would be one. ``customers`` by their primaries' ids, the oldest first; not all, if there are many.

    ``event`` is the one that would bring the first two of ``contacts`` together, one contact of each customer.
    """

    customers: tuple[int, ...]
    count: int
    contacts: tuple[int, ...]
    event: int

    def __str__(self) -> str:
        *others, last = map(str, self.customers)
        if self.count > len(self.customers):
            others, last = [*others, last], f"{self.count - len(self.customers):,} more"
        one, other = self.contacts[:2]
        return (
            f"customers {', '.join(others)} and {last} would be one: "
            f"event {self.event} brings contacts {one} and {other} together"
        )


class FallenApart(Struct, frozen=True, rename="camel"):
    """A customer who would be several. ``contacts``: how many there are now; ``count``: of the parts.

    ``parts``: how many present contacts each has, and ``apart``: the oldest of each; the larger first, not all if there
    are many. ``event`` had brought the first two of ``apart`` together.
    """

    customer: int
    contacts: int
    count: int
    parts: tuple[int, ...]
    apart: tuple[int, ...]
    event: int

    def __str__(self) -> str:
        parts = ", ".join(map(str, self.parts)) + (", …" if self.count > len(self.parts) else "")
        one, other = self.apart[:2]
        return (
            f"customer {self.customer} ({self.contacts:,} contacts) would be {self.count:,} ({parts}): "
            f"event {self.event} brought contacts {one} and {other} together"
        )


class Refusal(Struct, frozen=True):
    """A request that would be refused, by its event, and why."""

    event: int
    problem: str

    def __str__(self) -> str:
        return f"event {self.event} would be refused: {self.problem}"


class Tally(Struct, frozen=True, rename="camel"):
    """What one world came to: counts of customers, contacts and requests."""

    customers: int = 0
    contacts: int = 0
    withheld: int = 0
    """requests of which a limit kept something back"""
    over_limit: int = 0
    """requests that linked all the same, and raised a count above its limit"""
    largest: tuple[int, ...] = ()
    """contacts of the largest customers"""


class Outlook(Struct, frozen=True, rename="camel"):
    """How other rules would change who is whom."""

    requests: int
    verbs: int
    """that stewards carried out, and that were left out"""
    now: Tally
    then: Tally
    joined: int
    """customers who would be joined with another"""
    fallen_apart: int
    """customers who would be several"""
    refused: int
    """requests"""
    ignored: int
    """requests of which a value would count as not given"""
    blocked: int
    """requests of which a value would be blocked"""
    joined_examples: tuple[Joined, ...]
    fallen_apart_examples: tuple[FallenApart, ...]
    refused_examples: tuple[Refusal, ...]
    withheld_examples: tuple[int, ...]
    """events"""
    over_limit_examples: tuple[int, ...]
    """events"""

    @property
    def is_the_same(self) -> bool:
        """Whether nobody would be another customer than now."""
        return not (self.joined or self.fallen_apart or self.refused) and self.now.contacts == self.then.contacts


class Simulation:
    """Takes the log in order; `outlook` then tells how the rules would change who is whom."""

    def __init__(self, rules: Rules, examples: int = 0) -> None:
        self._rules = rules
        self._most = examples
        numbering = Numbering()
        self.now = World(numbering)
        self.then = World(numbering, rules.normalisation.kinds.limits)
        self._ids = array("q")  # of the present contacts: by which id one finds them
        self._seqs = array("q")  # which events made them
        self._places = array("i")  # where each would be: a contact then, or NOBODY
        self._requests = self._verbs = self._refused = self._ignored = self._blocked = 0
        self._withheld_now = self._over_limit_now = self._withheld_then = self._over_limit_then = 0
        self._standing: Mapping[Identifier, int] = {}
        self._refusals: list[Refusal] = []
        self._withheld: list[int] = []
        self._over_limit: list[int] = []

    def stand_in_the_way(self, blocked: Mapping[Identifier, int]) -> None:
        """These identifiers count in no request that came after the event that blocked them."""
        self._standing = blocked

    def leave_out(self) -> None:
        """One more event that is a steward's."""
        self._verbs += 1

    def add(self, request: LoggedRequest) -> None:
        """One more request."""
        self._requests += 1
        born = (request.born_at - _EPOCH) // _MICROSECOND
        contacts = self.now.contacts
        self._take_as_it_was(request, born)
        place = self._take_as_it_would_be(request, born)
        if self.now.contacts > contacts:
            self._ids.append(request.contact_id)
            self._seqs.append(request.seq)
            self._places.append(place)

    def _take_as_it_was(self, request: LoggedRequest, born: int) -> None:
        """What a ban kept back joins: stewards are left out. What a limit kept back did not."""
        apart = {kept.identifier for kept in request.kept_back if kept.limit_kind is not None}
        self.now.take(request.seq, born, [i for i in request.identifiers if i not in apart])
        self._withheld_now += bool(apart)
        self._over_limit_now += bool(request.exceeded)

    def _take_as_it_would_be(self, request: LoggedRequest, born: int) -> int:
        try:
            identifiers = self._identifiers(request)
        except InvalidInput as error:
            self._refused += 1
            _note(self._refusals, Refusal(request.seq, str(error)), self._most)
            return NOBODY
        kinds = self._rules.normalisation.kinds
        found = joining(identifiers, self.then, kinds) if kinds.limits else everything(identifiers, ())
        if found.kept_back:
            self._withheld_then += 1
            _note(self._withheld, request.seq, self._most)
        if found.exceeded:
            self._over_limit_then += 1
            _note(self._over_limit, request.seq, self._most)
        return self.then.take(request.seq, born, found.joined)

    def _identifiers(self, request: LoggedRequest) -> tuple[Identifier, ...]:
        """What a request says under the rules to try, in order of priority. Raises InvalidInput."""
        normalisation, blocked = self._rules.normalisation, self._rules.blocked
        given, kept = _said(request)
        found = kept
        try:
            details = normalisation.details(given)
            self._ignored += bool(details.ignored)
            found = (*details.identifiers, *kept)
        except InvalidInput as error:
            if not kept or any(problem.path != "root" for problem in error.problems):
                raise  # else what was typed says nothing, beside what is only known as it was read
        if self._standing:
            found = tuple(i for i in found if self._standing.get(i, request.seq) >= request.seq)
        if blocked and not blocked.isdisjoint(found):
            self._blocked += 1
            found = tuple(identifier for identifier in found if identifier not in blocked)
            if not found:
                raise InvalidInput(Problem("root", "All of its values would be blocked"))
        return normalisation.kinds.ordered(found) if kept else found

    def outlook(self) -> Outlook:
        """Returns what the two worlds differ in. The largest examples, the larger first."""
        now = array("i", map(self.now.root, range(len(self._ids))))
        then = array("i", (NOBODY if place == NOBODY else self.then.root(place) for place in self._places))
        divided, united = _with_several(now, then, self.now.contacts), _with_several(then, now, self.then.contacts)
        joined = bytearray(self.now.contacts)
        for here, there in zip(now, then, strict=True):
            if there != NOBODY and united[there]:
                joined[here] = True
        primaries = self._primaries(now)
        return Outlook(
            requests=self._requests,
            verbs=self._verbs,
            now=_tally(self.now, self._withheld_now, self._over_limit_now),
            then=_tally(self.then, self._withheld_then, self._over_limit_then),
            joined=sum(joined),
            fallen_apart=sum(divided),
            refused=self._refused,
            ignored=self._ignored,
            blocked=self._blocked,
            joined_examples=tuple(
                self._joined(groups, primaries) for groups in self._groups(united, then, now, self.then).values()
            ),
            fallen_apart_examples=tuple(
                self._fallen_apart(here, groups, primaries)
                for here, groups in self._groups(divided, now, then, self.now).items()
            ),
            refused_examples=tuple(self._refusals),
            withheld_examples=tuple(self._withheld),
            over_limit_examples=tuple(self._over_limit),
        )

    def _primaries(self, now: Sequence[int]) -> array[int]:
        """Of each root, the oldest contact of its cluster."""
        primaries = array("i", [NOBODY]) * self.now.contacts
        for contact, root in enumerate(now):
            if primaries[root] == NOBODY or self._seniority(contact) < self._seniority(primaries[root]):
                primaries[root] = contact
        return primaries

    def _seniority(self, contact: int) -> tuple[int, int]:
        return self.now.born[contact], self._ids[contact]

    def _groups(
        self, flags: bytearray, roots: Sequence[int], others: Sequence[int], world: World
    ) -> dict[int, dict[int, list[int]]]:
        """Of the largest clusters of a world that have a flag: the present contacts, by their clusters in the other."""
        flagged = (root for root, flag in enumerate(flags) if flag)
        wanted: dict[int, dict[int, list[int]]] = {
            root: defaultdict(list) for root in heapq.nlargest(self._most, flagged, key=lambda r: (world.size(r), -r))
        }
        for contact, (root, other) in enumerate(zip(roots, others, strict=True)):
            if root in wanted and other != NOBODY:
                wanted[root][other].append(contact)
        return wanted

    def _joined(self, groups: Mapping[int, Sequence[int]], primaries: Sequence[int]) -> Joined:
        """``groups``: the contacts of one cluster to be, by those they are of now."""
        customers = sorted(groups, key=lambda root: self._seniority(primaries[root]))
        contacts = [min(groups[root], key=self._seniority) for root in customers[:_NAMED]]
        first, second = contacts[:2]
        return Joined(
            customers=tuple(self._ids[primaries[root]] for root in customers[:_NAMED]),
            count=len(customers),
            contacts=tuple(self._ids[contact] for contact in contacts),
            # One that would not be made comes to the other by its own event.
            event=max(
                self._seqs[first],
                self._seqs[second],
                self.then.joined_by(self._places[first], self._places[second]),
            ),
        )

    def _fallen_apart(self, root: int, groups: Mapping[int, Sequence[int]], primaries: Sequence[int]) -> FallenApart:
        """``groups``: the contacts of a present cluster, by those they would be of."""
        parts = sorted(groups.values(), key=lambda part: (-len(part), min(map(self._seniority, part))))
        apart = [min(part, key=self._seniority) for part in parts[:_NAMED]]
        return FallenApart(
            customer=self._ids[primaries[root]],
            contacts=self.now.size(root),
            parts=tuple(map(len, parts[:_NAMED])),
            count=len(parts),
            apart=tuple(self._ids[contact] for contact in apart),
            event=self.now.joined_by(*apart[:2]),
        )


def _said(request: LoggedRequest) -> tuple[Given, tuple[Identifier, ...]]:
    """What a request gave, as it was typed; and the kinds of which nothing is left as it was typed, as they were read:
    an erasure takes out all of a kind, and leaves a token."""
    raw = request.raw
    typed = [(kind, value) for kind, value in raw.get("identifiers", ())]
    kinds = {kind for kind, _ in typed}
    kinds.update(kind for kind, name in RAW.items() if name in raw)
    read = tuple(identifier for identifier in request.identifiers if identifier.kind not in kinds)
    return Given(raw.get(RAW[EMAIL]), raw.get(RAW[PHONE_NUMBER]), typed), read


def _with_several(roots: Iterable[int], others: Iterable[int], count: int) -> bytearray:
    """Of each root, whether its contacts are of several clusters in the other world."""
    first, several = array("i", [NOBODY]) * count, bytearray(count)
    for root, other in zip(roots, others, strict=True):
        if NOBODY in (root, other):
            continue
        if first[root] == NOBODY:
            first[root] = other
        elif first[root] != other:
            several[root] = True
    return several


def _tally(world: World, withheld: int, over_limit: int) -> Tally:
    largest = heapq.nlargest(_LARGEST, map(world.size, world.roots()))
    return Tally(world.clusters, world.contacts, withheld, over_limit, tuple(largest))


def _note(examples: list[Any], example: object, most: int) -> None:
    if len(examples) < most:
        examples.append(example)
