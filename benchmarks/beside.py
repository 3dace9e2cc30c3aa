"""Stewards beside traffic: whether they get done, how long it takes them, and what it costs the requests."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from statistics import median

import msgspec
from msgspec import Struct

from benchmarks.databases import Databases
from benchmarks.figures import Figures
from benchmarks.load import HERE
from benchmarks.report import Progress, Table
from benchmarks.speed import Options, labels
from benchmarks.workload import email, phone
from identity_graphql import observability
from identity_graphql.domain.decide import Command, VerbResult
from identity_graphql.domain.identifiers import EMAIL, Given, Identifier, Normalisation
from identity_graphql.errors import Busy
from identity_graphql.services.identify import LARGEST_BATCH, IdentityService
from identity_graphql.services.stewardship import StewardService
from identity_graphql.storage import Storage
from identity_graphql.storage.address import Address
from tests.support.serving import process

CONNECTIONS = 64
CUSTOMERS = 1_000
"""known before, whatever else there is"""
WARM_UP = 1.0  # seconds
PAUSE = 0.2
"""Seconds after a verb, in which a steward looks at what came of it."""

Ask = Callable[[Command], Awaitable[VerbResult]]


class Scene(Struct, frozen=True):
    """What the stewards have beside them."""

    name: str
    database: str
    writes: int
    """a second: links to the busy clusters"""
    verbs: int
    busy: int = 200
    """Clusters that the requests are about. Every link makes one of them larger, and every answer has all of its
    cluster: with few clusters the answers would soon take longer than all else."""
    contacts: int = 0
    """that each of them has before"""


SCENES = (
    Scene("a cluster of 1,000", "postgresql", writes=15, verbs=88, busy=1, contacts=1_000),
    Scene("a cluster of 10,000", "postgresql", writes=15, verbs=10, busy=1, contacts=10_000),
    Scene("200 clusters", "postgresql", writes=500, verbs=50),
    Scene("200 clusters", "mariadb", writes=200, verbs=50),
    Scene("200 clusters", "sqlite", writes=100, verbs=50),
)


class Steward:
    """Asks for one verb after the other, each after a look at its clusters; and again where nobody had time."""

    def __init__(self, storage: Storage) -> None:
        self.identify = IdentityService(storage, Normalisation())
        self.service = StewardService(storage, Normalisation())
        self.taken: list[float] = []
        self.busy = 0

    async def close(self) -> None:
        await self.identify.close()
        await self.service.close()

    async def contact(self, email: str, phone_number: str) -> int:
        """The contact that carries these, after a request with them."""
        cluster = (await self.identify.identify(Given(email=email, phone_number=phone_number))).cluster
        return next(c.id for c in cluster.contacts if (c.email, c.phone_number) == (email, phone_number))

    async def do(self, ask: Ask, contact_id: int, other_id: int | None = None) -> VerbResult:
        while True:
            version, other_version = await self._version(contact_id), other_id and await self._version(other_id)
            started = time.perf_counter()
            try:
                result = await ask(Command("ann", "measured", version, other_version))
            except Busy:
                self.busy += 1
            else:
                self.taken.append(time.perf_counter() - started)
                return result

    async def undo(self, verb: VerbResult) -> VerbResult:
        return await self.do(partial(self.service.undo, verb.event.seq), verb.event.primary_id)

    async def merge(self, one: int, other: int) -> VerbResult:
        return await self.do(partial(self.service.merge_clusters, one, other), one, other)

    async def every_kind(
        self, here: Sequence[int], there: Sequence[int], erased: Identifier
    ) -> AsyncIterator[VerbResult]:
        """Ten verbs about two quiet clusters, of three contacts each; ``erased`` is of the first."""
        service = self.service
        yield (split := await self.do(partial(service.split_cluster, [here[1]]), here[1]))
        yield await self.undo(split)
        yield await self.do(partial(service.ban_link, here[0], there[0]), here[0], there[0])
        yield await self.do(partial(service.unban_link, here[0], there[0]), here[0], there[0])
        yield (merged := await self.merge(here[0], there[0]))
        yield await self.undo(merged)
        yield await self.do(partial(service.delete_contact, here[1]), here[1])
        yield await self.do(partial(service.restore_contact, here[1]), here[1])
        yield await self.do(partial(service.erase_identifier, erased), here[2])
        yield await self.do(partial(service.erase_cluster, there[0]), there[0])

    async def _version(self, contact_id: int) -> int:
        """That of its cluster; of its own row if it is deleted."""
        (cluster,) = await self.identify.clusters_of([contact_id])
        if cluster is not None:
            return cluster.version
        (contact,) = await self.identify.contacts([contact_id])
        assert contact
        return contact.version


async def beside(databases: Databases, options: Options, progress: Progress) -> Table:
    """One lineage: quiet clusters that were once merged with busy ones. Links to the busy ones through HTTP, at a
    fixed rate; verbs about the quiet ones from another process."""
    observability.configure(level="ERROR", form="json")
    label, rows = labels(), []
    with progress.task("Beside", sum(scene.verbs for scene in SCENES)) as advance:
        for scene in SCENES:
            async with databases.known(scene.database, CUSTOMERS) as url:
                rows.append([_name(scene), *await measured(scene, url, next(label), options.seconds, advance)])
    return Table(
        "Beside",
        ["one lineage", "links/s", "verbs", "BUSY", "verb ms", "longest", "beside ms", "alone ms", "errors"],
        rows,
        [
            "Quiet clusters that were once merged with busy ones, undone since; verbs about the quiet ones, links to "
            "the busy ones. Of every ten verbs: split, undo, ban, unban, merge, undo, delete, restore, erase an "
            "identifier, erase a cluster, one after the other with a pause of "
            f"{PAUSE} s, without HTTP, in a process of their own: median and longest. Beside, alone: p50 / p99 in ms "
            "of the links with stewards, and after them without, through HTTP, counted from when they were due.",
        ],
    )


def _name(scene: Scene) -> str:
    return f"{scene.database}: {scene.name}, {scene.writes} links/s"


async def measured(scene: Scene, url: str, label: str, seconds: float, advance: Callable[[int], None]) -> list[str]:
    """The cells of a row: links/s, verbs, BUSY, median and longest in ms, links beside and alone, errors."""
    storage = Storage.open(Address.parse(url))
    steward = Steward(storage)
    try:
        quiet = await grown(steward, scene)
        steward.taken.clear()
        async with process(url) as address, traffic(address, scene, label) as figures:
            gc.collect()
            gc.freeze()  # as a server does
            await asyncio.sleep(WARM_UP)
            await figures()
            for n in range(0, len(quiet), 2):
                erased = Identifier(EMAIL, f"q{n}.2@x.io")
                async for _ in steward.every_kind(quiet[n], quiet[n + 1], erased):
                    advance(1)
                    await asyncio.sleep(PAUSE)
            beside = await figures()
            await asyncio.sleep(seconds)
            alone = await figures()
    finally:
        gc.unfreeze()
        await steward.close()
        await storage.close()
    return [
        f"{beside.rate:.0f}",
        str(len(steward.taken)),
        str(steward.busy),
        f"{median(steward.taken) * 1000:.0f}",
        f"{max(steward.taken) * 1000:.0f}",
        _latency(beside),
        _latency(alone),
        str(beside.errors + alone.errors),
    ]


def _latency(figures: Figures) -> str:
    return f"{figures.p50:.1f} / {figures.p99:.0f}"


@asynccontextmanager
async def traffic(address: str, scene: Scene, label: str) -> AsyncIterator[Callable[[], Awaitable[Figures]]]:
    """Links to the busy clusters, from a process of its own; what it yields tells how they fared since it last did."""
    command = [sys.executable, "-m", "benchmarks.traffic", address, "link", str(scene.busy), label]
    program = await asyncio.create_subprocess_exec(
        *(*command, str(min(CONNECTIONS, 4 * scene.writes)), str(scene.writes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=HERE.parent,
    )
    assert program.stdin
    assert program.stdout
    stdin, stdout = program.stdin, program.stdout
    await stdout.readline()

    async def figures() -> Figures:
        stdin.write(b"\n")
        return msgspec.json.decode(await stdout.readline(), type=Figures)

    try:
        yield figures
    finally:
        stdin.close()
        await program.wait()


async def grown(steward: Steward, scene: Scene) -> list[list[int]]:
    """The quiet clusters' contacts: one lineage with the busy ones, by merges that were taken back."""
    for j in range(scene.busy):
        for start in range(0, scene.contacts, LARGEST_BATCH):
            await steward.identify.identify_many(
                [Given(f"b{j}.{start + n}@x.io", phone(j)) for n in range(LARGEST_BATCH)]
            )
    busy = [await steward.contact(email(j), phone(j)) for j in range(scene.busy)]
    quiet = [
        [await steward.contact(f"q{number}.{n}@x.io", f"+1888{number:06}") for n in range(3)]
        for number in range(2 * -(-scene.verbs // 10))
    ]
    for other in [*busy[1:], *(contacts[0] for contacts in quiet)]:
        await steward.undo(await steward.merge(busy[0], other))
    return quiet
