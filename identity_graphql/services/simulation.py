"""What the log would have come to under other rules: read once, in one snapshot. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable

from identity_graphql.domain.simulation import Rules, Simulation
from identity_graphql.storage import Storage

Progress = Callable[[int, int], None]


async def simulate(storage: Storage, rules: Rules, *, examples: int, progress: Progress | None = None) -> Simulation:
    """Returns the simulation of the whole log under these rules, with so many examples of each kind.

    ``progress`` is called now and then with how many events were taken, and how many there are.
    """
    simulation, done = Simulation(rules, examples), 0
    async with storage.table_scan() as scan:
        total = await scan.size()
        simulation.stand_in_the_way(await scan.all_blocked())
        async for page in scan.requests():
            for request in page:
                if request is None:
                    simulation.leave_out()
                else:
                    simulation.add(request)
            done += len(page)
            if progress is not None:
                progress(done, total)
    return simulation
