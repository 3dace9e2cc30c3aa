"""What is special about PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import msgspec
import orjson
import sqlalchemy as sa
from asyncpg import exceptions
from msgspec.structs import asdict
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from identity_graphql.domain.contacts import PROVISIONAL
from identity_graphql.domain.events import IdentifyEvent
from identity_graphql.domain.reconcile import Numbers, Plan
from identity_graphql.domain.state import Pair
from identity_graphql.errors import ConfigurationError, Conflict
from identity_graphql.storage import tables
from identity_graphql.storage.address import Address
from identity_graphql.storage.dialect import CONNECT_TIMEOUT, Engines, Pool
from identity_graphql.storage.error_table import POSTGRESQL, ErrorClass, Meaning
from identity_graphql.storage.event_rows import row_of
from identity_graphql.storage.plan_writes import claiming, claims
from identity_graphql.storage.statements import others_row

# What the driver finds by itself, without a code: a statement that was prepared before somebody changed a table, and a
# server that is not the one asked for (target_session_attrs).
UNCODED = {
    exceptions.InvalidCachedStatementError: ErrorClass.RETRY,
    exceptions.OutdatedSchemaCacheError: ErrorClass.RETRY,
    exceptions.TargetServerAttributeNotMatched: ErrorClass.UNWRITABLE,
    exceptions.ProtocolError: ErrorClass.AWAY,
}
# How our connections plan, whatever PostgreSQL knows of the tables, which may be nothing, or what was true of ten rows
# (decision 0017). Each statement once, as planning costs more than a look-up, and so that it is right for tables of
# any size: by an index. It would read a small table as a whole, and go on to when it is large.
PLANNING = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_indexonlyscan": "off",
}
_NEW_TO_ONE = {tables.identifier.name, tables.pair.name, tables.withheld_pair.name}
"""Where a duplicate says that another writer was faster."""
FULL_SCANS = sa.text("SELECT set_config('enable_seqscan', 'on', true), set_config('enable_indexonlyscan', 'on', true)")
ENCODING = sa.text("SELECT current_setting('server_encoding')")
NO_TIMEOUT = sa.text("SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)")
MIGRATION_LOCK = 0x1DE7717  # any number that nobody else uses


class PostgreSQL:
    def engines(self, address: Address, pool: Pool) -> Engines:
        engine = create_async_engine(
            address.url,
            connect_args=_arguments(address, pool),
            pool_size=pool.size,
            max_overflow=0,
            pool_timeout=pool.timeout,
            pool_use_lifo=True,  # a few connections that know the statements, rather than many that do not yet
            # One statement needs no BEGIN and COMMIT around it, not even to write; but where settings last for a
            # transaction it does.
            isolation_level="READ COMMITTED" if address.pooled else "AUTOCOMMIT",
            json_deserializer=msgspec.json.decode,  # to read the log is to read JSON
            hide_parameters=True,  # error texts hold no personal data
        )
        return Engines(
            read=engine,
            # Set rather than inherited: correct at every level, this one only avoids needless conflicts.
            write=engine.execution_options(isolation_level=pool.isolation_level),
            snapshot=engine.execution_options(isolation_level="REPEATABLE READ"),
            queue=engine.execution_options(isolation_level="READ COMMITTED"),
            write_alone=pool.isolation_level == "READ COMMITTED" and not address.pooled,
        )

    def classify_error(self, error: BaseException) -> Meaning:
        origin = getattr(error, "orig", None) or error
        origin = origin.__cause__ or origin  # the driver's own, which SQLAlchemy wraps
        if (kind := UNCODED.get(type(origin))) is not None:
            return Meaning(kind, type(origin).__name__)
        state: str | None = getattr(origin, "sqlstate", None)
        if state is None:
            return Meaning(ErrorClass.OURS, type(origin).__name__)
        found = POSTGRESQL.meaning(state, state[:2])
        table = getattr(origin, "table_name", None)
        if found.kind is ErrorClass.DUPLICATE and table not in _NEW_TO_ONE:
            return Meaning(ErrorClass.OURS, found.name)
        return found

    async def check_encoding(self, connection: AsyncConnection) -> None:
        encoding = (await connection.execute(ENCODING)).scalar_one()
        if encoding != "UTF8":
            raise ConfigurationError(
                f"The database has the encoding {encoding}, which cannot hold every email: it must be UTF8. Make "
                "another one, with CREATE DATABASE identity ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0, and name it "
                "in DATABASE_URL."
            )

    async def write(self, connection: AsyncConnection, plan: Plan) -> Numbers:
        """All of it in one statement: the round trips between seven cost more than their work (decision 0011).

        It stands or falls as a whole, so it needs no transaction around it.
        """
        drawn: Mapping[int, int] = {}
        if any(_documents_name(event, PROVISIONAL) for event in plan.events) or any(
            (contact.linked_id or 0) >= PROVISIONAL for contact in plan.relinks
        ):
            # Created and demoted or kept from in the same batch, so that a document of the log names it; or older
            # than what it is linked to. Its id is needed beforehand.
            numbers = (await connection.execute(_DRAW, {"count": len(plan.contacts)})).scalars()
            drawn = {contact.id: number for contact, number in zip(plan.contacts, sorted(numbers), strict=True)}
        with claiming(self.classify_error):
            more = _has_more(plan)
            statement = _WRITE_MORE if more else _WRITE
            written = (await connection.execute(statement, _parameters(plan, drawn, more=more))).one_or_none()
        if written is None:
            raise Conflict("a cluster changed since it was read")
        ids, seqs = written
        return Numbers({contact.id: id for contact, id in zip(plan.contacts, ids, strict=True)}, seqs)

    async def insert_numbered(
        self, connection: AsyncConnection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        (key,) = table.primary_key
        statement = table.insert().returning(key)
        return [(await connection.execute(statement, row)).scalar_one() for row in rows]

    async def wait_for_writers(self, engines: Engines, seq: int) -> None:
        # Whoever has drawn a number holds this lock on the table until the commit. Nobody waits for us.
        async with engines.read.connect() as connection:
            writers = set((await connection.execute(_WRITERS)).scalars())
            while writers:
                await asyncio.sleep(0.002)
                writers &= set((await connection.execute(_WRITERS)).scalars())

    async def truncate_wal(self, engines: Engines) -> bool:
        return True  # no table has it any more; what the server keeps of them is not ours to see

    @asynccontextmanager
    async def without_timeouts(self, connection: AsyncConnection) -> AsyncIterator[None]:
        await connection.execute(NO_TIMEOUT)
        yield

    async def allow_full_scans(self, connection: AsyncConnection) -> None:
        await connection.execute(FULL_SCANS)

    @asynccontextmanager
    async def migration_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        # Of the transaction, not of the session: a pooler in front may hand the session to somebody else.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        yield


def _arguments(address: Address, pool: Pool) -> dict[str, Any]:
    """The arguments of a connection, with the settings that are for our connections alone."""
    arguments = {"timeout": CONNECT_TIMEOUT, **address.connect_args}
    timeouts = {"statement_timeout": pool.statement_timeout, "lock_timeout": pool.lock_timeout}
    settings = {
        **arguments["server_settings"],
        **PLANNING,
        **{name: str(round(seconds * 1000)) for name, seconds in timeouts.items()},
    }
    if address.pooled:  # it refuses every setting that it does not know, but for this one
        name = "application_name"
        arguments["server_settings"] = {name: settings.pop(name)}
        arguments["connection_class"] = _beginning_with(settings)
    else:
        arguments["server_settings"] = settings
    return arguments


def _beginning_with(settings: Mapping[str, str]) -> type[asyncpg.Connection]:
    """Connections that begin each transaction with these settings, which last as long as it does."""
    query = "SELECT " + ", ".join(
        f"set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in settings.items()
    )

    class Connection(asyncpg.Connection):  # type: ignore[misc]
        async def execute(self, statement: str, *args: Any, **options: Any) -> Any:
            if statement.startswith("BEGIN"):  # in the same round trip, which costs more than the settings do
                statement = f"{statement} {query}"
            return await super().execute(statement, *args, **options)

    return Connection


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# The steps of `plan_writes.write`, in its order: each waits for the one before it, which it counts or joins. The
# statement sees the tables as they were before it, so a row is changed at most once: the swap of a primary that is
# demoted also links it. Rows that are there are found by a list of keys, and only then joined, by hash, whatever is
# known of the tables: `+ 0` and `|| ''` keep a join from going through an index, some of them or all of it;
# `generate_subscripts` is there because it counts as a thousand rows, where `unnest` counts as ten.
_PAIRS = """  RETURNING seq, email, phone_number
), paired AS (
  INSERT INTO pair (kind, value, other_kind, other_value, seq)
  SELECT 'email', email, 'phone_number', phone_number, seq FROM logged
  WHERE email IS NOT NULL AND phone_number IS NOT NULL
  ORDER BY email, phone_number
)
"""
_MORE = """  RETURNING seq
), numbered AS MATERIALIZED (
  SELECT ARRAY(SELECT seq FROM logged ORDER BY seq) AS seqs
), paired AS (
  INSERT INTO pair (kind, value, other_kind, other_value, seq)
  SELECT given.kind, given.value, given.other_kind, given.other_value, seqs[given.event]
  FROM verified, numbered, unnest(
    CAST(:pair_kind AS text[]), CAST(:pair_value AS text[]), CAST(:pair_other_kind AS text[]),
    CAST(:pair_other_value AS text[]), CAST(:pair_event AS integer[])
  ) AS given (kind, value, other_kind, other_value, event)
), kept_back AS (
  INSERT INTO withheld_pair (kind, value, other_kind, other_value, seq, banned, limit_kind)
  SELECT given.kind, given.value, given.other_kind, given.other_value, seqs[given.event], false, given.limit_kind
  FROM verified, numbered, unnest(
    CAST(:withheld_kind AS text[]), CAST(:withheld_value AS text[]), CAST(:withheld_other_kind AS text[]),
    CAST(:withheld_other_value AS text[]), CAST(:withheld_event AS integer[]), CAST(:withheld_limit_kind AS text[])
  ) AS given (kind, value, other_kind, other_value, event, limit_kind)
), believed AS (
  DELETE FROM withheld_pair USING verified, unnest(
    CAST(:believed_kind AS text[]), CAST(:believed_value AS text[]), CAST(:believed_other_kind AS text[]),
    CAST(:believed_other_value AS text[])
  ) AS given (kind, value, other_kind, other_value)
  WHERE withheld_pair.value = ANY (CAST(:believed_value AS text[])) AND withheld_pair.kind || '' = given.kind
    AND withheld_pair.value || '' = given.value AND withheld_pair.other_kind || '' = given.other_kind
    AND withheld_pair.other_value || '' = given.other_value
), counted AS (
  INSERT INTO cluster_count (primary_id, kind, count)
  SELECT coalesce(created.id, given.primary_id), given.kind, given.count
  FROM verified, unnest(
    CAST(:count_primary_id AS bigint[]), CAST(:count_kind AS text[]), CAST(:count_count AS bigint[])
  ) AS given (primary_id, kind, count) LEFT JOIN created ON created.provisional = given.primary_id
  WHERE given.count IS NOT NULL
  ON CONFLICT (primary_id, kind) DO UPDATE SET count = excluded.count
), uncounted AS (
  DELETE FROM cluster_count USING verified, unnest(
    CAST(:count_primary_id AS bigint[]), CAST(:count_kind AS text[]), CAST(:count_count AS bigint[])
  ) AS given (primary_id, kind, count)
  WHERE cluster_count.primary_id = ANY (CAST(:count_primary_id AS bigint[])) AND given.count IS NULL
    AND cluster_count.primary_id + 0 = given.primary_id AND cluster_count.kind || '' = given.kind
), marked AS (
  INSERT INTO event_contact (contact_id, seq)
  SELECT coalesce(created.id, given.contact_id), seqs[given.event]
  FROM verified, numbered, unnest(CAST(:mark_contact_id AS bigint[]), CAST(:mark_event AS integer[]))
    AS given (contact_id, event) LEFT JOIN created ON created.provisional = given.contact_id
)
"""


def _written(*, more: bool) -> sa.TextClause:
    """The statement that writes a plan; with what only identifiers of other kinds, limits, bans and large clusters need
    if there is ``more`` (`_has_more`)."""
    contact = (", CAST(:contact_others AS text[])", ", others", ", CAST(created.others AS json)") if more else ("",) * 3
    event = (
        (
            ", CAST(:event_detail AS text[]), CAST(:event_others AS text[]), CAST(:event_source AS text[]),"
            " CAST(:event_occurred_at AS timestamptz[])",
            ", detail, others, source, occurred_at",
            ", CAST(given.detail AS json), CAST(given.others AS json), given.source, given.occurred_at",
        )
        if more
        else ("",) * 3
    )
    return sa.text(f"""
WITH swap AS (
  SELECT * FROM ROWS FROM (
    unnest(CAST(:swap_id AS bigint[])), unnest(CAST(:swap_seen AS bigint[])), unnest(CAST(:swap_version AS bigint[])),
    unnest(CAST(:swap_changed_at AS timestamptz[])), unnest(CAST(:swap_linked_id AS bigint[])),
    unnest(CAST(:swap_updated_at AS timestamptz[])), generate_subscripts(CAST(:swap_id AS bigint[]), 1)
  ) AS given (id, seen, version, changed_at, linked_id, updated_at, position)
), locked AS MATERIALIZED (
  -- an UPDATE alone locks its rows in any order, and two of them would wait for each other
  SELECT id, version FROM contact WHERE id = ANY (CAST(:swap_id AS bigint[])) ORDER BY id FOR NO KEY UPDATE
), verified AS MATERIALIZED (
  -- no row if one of them is no longer as it was seen: then nothing is written, as all that follows reads from here
  SELECT true AS unchanged FROM swap JOIN locked ON locked.id = swap.id AND locked.version = swap.seen
  HAVING count(*) = cardinality(CAST(:swap_id AS bigint[]))
), swapped AS (
  UPDATE contact
  SET version = swap.version, changed_at = swap.changed_at,
    linked_id = coalesce(swap.linked_id, contact.linked_id), updated_at = coalesce(swap.updated_at, contact.updated_at)
  FROM swap, verified
  WHERE contact.id = ANY (ARRAY(SELECT id FROM locked)) AND contact.id + 0 = swap.id
), created AS MATERIALIZED (
  SELECT given.*, coalesce(drawn, nextval('contact_id_seq')) AS id
  FROM (
    SELECT row.* FROM verified, unnest(
      CAST(:contact_id AS bigint[]), CAST(:contact_drawn AS bigint[]), CAST(:contact_email AS text[]),
      CAST(:contact_phone_number AS text[]), CAST(:contact_linked_id AS bigint[]),
      CAST(:contact_created_at AS timestamptz[]), CAST(:contact_updated_at AS timestamptz[]),
      CAST(:contact_version AS bigint[]), CAST(:contact_changed_at AS timestamptz[]){contact[0]}
    ) AS row (provisional, drawn, email, phone_number, linked_id, created_at, updated_at, version, changed_at
      {contact[1]})
    ORDER BY provisional
  ) AS given
), inserted AS (
  INSERT INTO contact (id, email, phone_number, linked_id, created_at, updated_at, version, changed_at{contact[1]})
  SELECT created.id, created.email, created.phone_number, coalesce(home.id, created.linked_id), created.created_at,
    created.updated_at, created.version, created.changed_at{contact[2]}
  FROM created LEFT JOIN created AS home ON home.provisional = created.linked_id
  ORDER BY created.id
), claimed AS (
  INSERT INTO identifier (kind, value, contact_id)
  SELECT given.kind, given.value, created.id
  FROM unnest(CAST(:claim_kind AS text[]), CAST(:claim_value AS text[]), CAST(:claim_contact_id AS bigint[]))
    AS given (kind, value, contact_id) JOIN created ON created.provisional = given.contact_id
  ORDER BY given.kind, given.value
), relinked AS (
  UPDATE contact SET linked_id = given.linked_id, updated_at = given.updated_at
  FROM verified, ROWS FROM (
    unnest(CAST(:relink_id AS bigint[])), unnest(CAST(:relink_linked_id AS bigint[])),
    unnest(CAST(:relink_updated_at AS timestamptz[])), generate_subscripts(CAST(:relink_id AS bigint[]), 1)
  ) AS given (id, linked_id, updated_at, position)
  WHERE contact.id = ANY (CAST(:relink_id AS bigint[])) AND contact.id + 0 = given.id
), logged AS (
  INSERT INTO event (at, kind, outcome, email, phone_number, raw, norm, contact_id, primary_id, demoted,
    version_before, version_after, request_id{event[1]})
  SELECT given.at, given.kind, given.outcome, given.email, given.phone_number, CAST(given.raw AS json), given.norm,
    coalesce(created.id, given.contact_id), coalesce(home.id, given.primary_id), CAST(given.demoted AS json),
    given.version_before, given.version_after, given.request_id{event[2]}
  FROM verified, unnest(
    CAST(:event_at AS timestamptz[]), CAST(:event_kind AS text[]), CAST(:event_outcome AS text[]),
    CAST(:event_email AS text[]), CAST(:event_phone_number AS text[]), CAST(:event_raw AS text[]),
    CAST(:event_norm AS text[]), CAST(:event_contact_id AS bigint[]), CAST(:event_primary_id AS bigint[]),
    CAST(:event_demoted AS text[]), CAST(:event_version_before AS bigint[]), CAST(:event_version_after AS bigint[]),
    CAST(:event_request_id AS text[]){event[0]}
  ) WITH ORDINALITY AS given (at, kind, outcome, email, phone_number, raw, norm, contact_id, primary_id, demoted,
      version_before, version_after, request_id{event[1]}, position)
    LEFT JOIN created ON created.provisional = given.contact_id
    LEFT JOIN created AS home ON home.provisional = given.primary_id
  ORDER BY position
{_MORE if more else _PAIRS}
SELECT ARRAY(SELECT id FROM created ORDER BY provisional), ARRAY(SELECT seq FROM logged ORDER BY seq) FROM verified
""")


_WRITE, _WRITE_MORE = _written(more=False), _written(more=True)

_WRITERS = sa.text(
    "SELECT virtualtransaction FROM pg_locks"
    " WHERE relation = 'event'::regclass AND mode = 'RowExclusiveLock' AND granted"
)

_DRAW = sa.text("SELECT nextval('contact_id_seq') FROM generate_series(1, CAST(:count AS integer))")


def _has_more(plan: Plan) -> bool:
    """Whether a plan has more to write than emails, phone numbers, and what was seen together for the first time."""
    return bool(plan.counts) or any(
        bool(event.others or event.kept_back or event.exceeded or decision.believed)
        or event.source is not None
        or event.occurred_at is not None
        for decision in plan.decisions
        if (event := decision.event) is not None
    )


def _parameters(plan: Plan, drawn: Mapping[int, int], *, more: bool) -> dict[str, list[Any]]:
    """A plan as one array per column. New contacts keep provisional ids: the statement knows the real ones."""
    moved = {contact.id: contact.renumbered(drawn) for contact in plan.relinks}
    demoted = [moved.pop(swap.primary_id, None) for swap in plan.swaps]
    contacts = [asdict(contact) for contact in plan.contacts]
    claimed = [{"kind": kind, "value": value, "contact_id": id} for kind, value, id in claims(plan)]
    events = [row_of(event.renumbered(drawn) if drawn else event) for event in plan.events]
    for row in events:
        row |= {name: _json(row[name]) for name in ("raw", "demoted")}
    return {
        "swap_id": [swap.primary_id for swap in plan.swaps],
        "swap_seen": [swap.seen for swap in plan.swaps],
        "swap_version": [swap.version for swap in plan.swaps],
        "swap_changed_at": [swap.changed_at for swap in plan.swaps],
        "swap_linked_id": [contact and contact.linked_id for contact in demoted],
        "swap_updated_at": [contact and contact.updated_at for contact in demoted],
        "contact_drawn": [drawn.get(contact.id) for contact in plan.contacts],
        **_columns("contact", _CONTACT, contacts),
        **_columns("claim", _CLAIM, claimed),
        **_columns("relink", _RELINK, [asdict(contact) for contact in moved.values()]),
        **_columns("event", _EVENT, events),
        **(_more_parameters(plan, events) if more else {}),
    }


def _more_parameters(plan: Plan, events: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    pairs = [{**_ends(pair), "event": place + 1} for pair, place in plan.new_pairs]
    withheld = [{**_ends(pair), "event": place + 1, "limit_kind": kind} for pair, place, kind in plan.new_withheld]
    marks = [
        {"contact_id": contact_id, "event": number}
        for number, event in enumerate(plan.events, 1)
        for contact_id in event.kept_from
    ]
    return {
        "contact_others": [_json(others_row(contact.others)) for contact in plan.contacts],
        "event_detail": [_json(row["detail"]) for row in events],
        "event_others": [_json(row["others"]) for row in events],
        **_columns("event", ("source", "occurred_at"), events),
        **_columns("pair", (*_PAIR, "event"), pairs),
        **_columns("withheld", (*_PAIR, "event", "limit_kind"), withheld),
        **_columns("believed", _PAIR, [_ends(pair) for pair in plan.believed]),
        **_columns("count", ("primary_id", "kind", "count"), [asdict(row) for row in plan.counts]),
        **_columns("mark", ("contact_id", "event"), marks),
    }


def _documents_name(event: IdentifyEvent, first: int) -> bool:
    """Whether a document of an event names a contact from this number on."""
    return any(demotion.id >= first for demotion in event.demoted) or any(i >= first for i in event.kept_from)


def _json(document: object) -> str | None:
    return None if document is None else orjson.dumps(document).decode()


def _ends(pair: Pair) -> dict[str, Any]:
    one, other = pair
    return {"kind": one.kind, "value": one.value, "other_kind": other.kind, "other_value": other.value}


_CONTACT = ("id", "email", "phone_number", "linked_id", "created_at", "updated_at", "version", "changed_at")
_PAIR = ("kind", "value", "other_kind", "other_value")
_CLAIM = ("kind", "value", "contact_id")
_RELINK = ("id", "linked_id", "updated_at")
_LATER = ("seq", "actor", "reason", "detail", "others", "source", "occurred_at")
_EVENT = tuple(column.name for column in tables.event.columns if column.name not in _LATER)


def _columns(table: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {f"{table}_{name}": [row[name] for row in rows] for name in names}
