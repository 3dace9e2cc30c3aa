"""Whether the tables are what the log leads to: rebuilt from the log alone, component by component, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import perf_counter

from msgspec import Struct
from msgspec.structs import replace

from identity_graphql.domain.components import Components
from identity_graphql.domain.identifiers import Identifier
from identity_graphql.domain.verify import (
    HASHES,
    Difference,
    Rebuilt,
    Rows,
    block_of,
    broken,
    claim_of,
    count_of,
    differences,
    digest,
    rebuild,
    surplus,
)
from identity_graphql.storage import Storage
from identity_graphql.storage.table_scan import EventBatch, TableRows, TableScan

BATCH = 4_000
"""Events that are read at a time. More only where one component has more: it is rebuilt as a whole."""

Tell = Callable[[Difference], None]
Progress = Callable[[int, int], None]


class Report(Struct, frozen=True):
    """What was verified, and how it came out. Counts and hash are of the state that the log leads to."""

    events: int
    contacts: int
    clusters: int
    pairs: int
    differences: int
    state_hash: str
    """of `domain.verify.digest`"""
    seconds: float


async def verify(storage: Storage, tell: Tell, progress: Progress | None = None) -> Report:
    """Compare the tables with the log, in one snapshot; ``tell`` gets every difference as it is found.

    ``progress`` is called now and then with how much is done, and how much there is to do.
    """
    began = perf_counter()
    async with storage.table_scan() as scan:
        verification = _Verification(scan, tell, progress or (lambda done, total: None))
        await verification.run()
    return verification.report(perf_counter() - began)


class _Verification:
    def __init__(self, scan: TableScan, tell: Tell, progress: Progress) -> None:
        self._scan = scan
        self._tell = tell
        self._progress = progress
        self._events = self._contacts = self._clusters = self._pairs = self._differences = self._hash = 0
        # Claims and former claims that were looked up by their identifiers, and need not be told of as strays.
        self._claims: set[tuple[str, str, int]] = set()
        self._former: set[tuple[str, str, int]] = set()
        self._blocked: set[tuple[Identifier, int]] = set()

    async def run(self) -> None:
        total = await self._scan.size()
        components = await self._components(total)
        for batch in _batches(components):
            await self._examine(batch)
            self._progress(total + 2 * self._events, 3 * total)
        unlogged = components.unlogged()
        while contact_ids := list(islice(unlogged, BATCH)):
            await self._report_unlogged(contact_ids)
        await self._find_strays(components)
        self._progress(1, 1)

    def report(self, seconds: float) -> Report:
        return Report(
            events=self._events,
            contacts=self._contacts,
            clusters=self._clusters,
            pairs=self._pairs,
            differences=self._differences,
            state_hash=f"{self._hash:064x}",
            seconds=seconds,
        )

    async def _components(self, total: int) -> Components:
        """Go through the log once, to see what belongs together."""
        components, done = Components(await self._scan.contact_ids()), 0
        async for outlines in self._scan.outlines():
            for outline in outlines:
                place = components.add(outline.seq, outline.contacts)
                for pair in outline.kept_back:
                    components.keeps_back(place, pair)
                for pair in outline.pairs:
                    components.speaks(place, pair)
            done += len(outlines)
            self._progress(done, 3 * total)
        components.gather()
        return components

    async def _examine(self, batch: Sequence[Sequence[int]]) -> None:
        """Rebuild the components of these events, and compare each with its rows."""
        seqs = [seq for component in batch for seq in component]
        told = await self._scan.events(seqs)
        named = [{contact_id for seq in component for contact_id in told.contacts.get(seq, ())} for component in batch]
        rows = await self._scan.rows([contact_id for contact_ids in named for contact_id in contact_ids], seqs)
        blocked = await self._scan.blocked(told)
        self._blocked.update(blocked.items())
        for component, contact_ids in zip(batch, named, strict=True):
            rebuilt = rebuild((seq, told.events.get(seq)) for seq in component)
            self._count(rebuilt, len(component))
            self._report(filter(None, [rebuilt.problem]))
            if rebuilt.problem is None:
                self._report(broken(rebuilt.state))
                found = await self._completed(_found(component, contact_ids, told, rows), rebuilt.rows)
                if blocked:
                    mine = set(component)
                    found = replace(found, blocked={one: seq for one, seq in blocked.items() if seq in mine})
                self._report(differences(rebuilt.rows, found))

    async def _report_unlogged(self, contact_ids: Sequence[int]) -> None:
        """Contacts that no event names: nothing of what they have is in the log."""
        rows = await self._scan.rows(contact_ids, ())
        self._report(differences(rebuild(()).rows, _found((), contact_ids, EventBatch({}, {}, {}), rows)))

    async def _completed(self, found: Rows, expected: Rows) -> Rows:
        """The rows, with the claims and former claims that are the log's, though not on what their contacts carry."""
        if missing := [i for i, contact_id in expected.claims.items() if found.claims.get(i) != contact_id]:
            claims = await self._scan.claims(missing)
            self._claims |= claims
            holders = {Identifier(kind, value): contact_id for kind, value, contact_id in claims}
            found = replace(found, claims={**found.claims, **holders})
        if missing := [identifier for identifier, _ in expected.former - found.former]:
            former = {
                (kind, value, contact_id)
                for kind, value, contact_id in await self._scan.former_claims(missing)
                if (Identifier(kind, value), contact_id) in expected.former
            }
            self._former |= former
            known = {(Identifier(kind, value), contact_id) for kind, value, contact_id in former}
            found = replace(found, former=found.former | known)
        return found

    async def _find_strays(self, components: Components) -> None:
        """What is in the tables, and of no contact or event that could have been asked for it."""
        scan = self._scan
        async for claim in scan.stray_claims():
            if tuple(claim) not in self._claims:
                self._report([surplus(claim_of(claim[2], claim[0]))])
        async for claim in scan.stray_former_claims():
            if tuple(claim) not in self._former:
                self._report([surplus(f"former {claim_of(claim[2], claim[0])}")])
        async for kind, value, seq in scan.stray_blocked():
            if (Identifier(kind, value), seq) not in self._blocked:
                self._report([surplus(block_of(seq, kind))])
        async for seq in scan.stray_pairs():
            self._report([surplus(f"pair of event {seq}")])
        async for (seq,) in scan.stray_withheld_pairs():
            self._report([surplus(f"withheld pair of event {seq}")])
        async for one, other in scan.stray_bans():
            if not components.knows(one):
                self._report([surplus(f"ban of contacts {one} and {other}")])
        async for primary_id, kind in scan.stray_counts():
            if not components.knows(primary_id):
                self._report([surplus(count_of(primary_id, kind))])
        async for contact_id, seq in scan.stray_marks():
            if not components.knows(contact_id):
                self._report([surplus(f"mark of event {seq} on contact {contact_id}")])

    def _count(self, rebuilt: Rebuilt, events: int) -> None:
        state = rebuilt.state
        self._events += events
        self._contacts += len(state.contacts)
        self._clusters += len(state.members)
        self._pairs += len(state.pairs)
        self._hash = (self._hash + digest(state)) % HASHES

    def _report(self, found: Iterable[Difference]) -> None:
        for difference in found:
            self._differences += 1
            self._tell(difference)


def _batches(components: Iterable[list[int]]) -> Iterator[list[list[int]]]:
    """Several components at a time, as their events are read together."""
    batch: list[list[int]] = []
    events = 0
    for component in components:
        if batch and events + len(component) > BATCH:
            yield batch
            batch, events = [], 0
        batch.append(component)
        events += len(component)
    if batch:
        yield batch


def _found(seqs: Iterable[int], contact_ids: Iterable[int], told: EventBatch, table: TableRows) -> Rows:
    """The rows of one component."""
    rows = Rows({}, {}, {}, {}, {}, {}, set(), set(), {})
    for contact_id in contact_ids:
        if contact_id in table.contacts:
            rows.contacts[contact_id] = table.contacts[contact_id]
            for identifier in table.claims[contact_id]:
                rows.claims[identifier] = contact_id
        if table.marks and contact_id in table.marks:
            rows.marks.update((contact_id, seq) for seq in table.marks[contact_id])
        if table.counts and contact_id in table.counts:
            rows.counts.update(((contact_id, kind), count) for kind, count in table.counts[contact_id])
        if table.bans and contact_id in table.bans:
            rows.bans.update(table.bans[contact_id])
        if table.former and contact_id in table.former:
            rows.former.update((identifier, contact_id) for identifier in table.former[contact_id])
    for seq in seqs:
        rows.pairs.update((pair, seq) for pair in told.pairs.get(seq, ()))
        if table.withheld and seq in table.withheld:
            rows.withheld.update(table.withheld[seq])
    return rows
