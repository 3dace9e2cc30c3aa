"""The schema, once, for every database; where types differ, they differ here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment in UTC with microseconds, aware in Python whatever the database keeps."""

    impl = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)  # they keep no zone, and what they keep is UTC

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        # PostgreSQL answers with aware times: nothing to do for any of the rows.
        return None if dialect.name == "postgresql" else super().result_processor(dialect, coltype)


class clock(FunctionElement[datetime]):
    """The database's clock, now: not the start of the transaction, which may have waited for a lock since."""

    type = UtcDateTime()
    inherit_cache = True
    name = "clock"


@compiles(clock, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "clock_timestamp()"


@compiles(clock, "mysql")
@compiles(clock, "mariadb")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(clock, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def as_text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A JSON document as it is stored: it is read, or not, row by row."""
    return sa.cast(column, sa.Text)


class each_of(FunctionElement[Any]):
    """The items of a list that is stored as JSON, as rows with the column `value`."""

    inherit_cache = True
    name = "each_of"


@compiles(each_of, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(each_of, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS json))"


@compiles(each_of, "mysql")
@compiles(each_of, "mariadb")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return f"JSON_TABLE({compiler.process(element.clauses, **options)}, '$[*]' COLUMNS (value JSON PATH '$'))"


class item_of(FunctionElement[str]):
    """The text at a place, from 0, of a list that is JSON."""

    type = sa.Text()
    inherit_cache = True
    name = "item_of"

    def __init__(self, document: sa.ColumnElement[Any], place: int) -> None:
        super().__init__(document, sa.literal_column(str(place)))


@compiles(item_of, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    document, place = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({document} ->> {place})"


@compiles(item_of)
def _(element: Any, compiler: Any, **options: Any) -> str:
    document, place = (compiler.process(clause, **options) for clause in element.clauses)
    extracted = f"JSON_EXTRACT({document}, '$[{place}]')"
    return extracted if compiler.dialect.name == "sqlite" else f"JSON_UNQUOTE({extracted})"


class Condition(FunctionElement[bool]):
    """What stands in a WHERE as it is. Where there are no booleans, SQLAlchemy compares others with 1, and no index is
    used then: every look-up would go through the whole table, and a lock would lock it."""

    type = sa.Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Self:
        return self


class among(Condition):
    """Whether a column's value is one of the list that is given under a name.

    PostgreSQL takes the list as an array; elsewhere each length of it is a statement of its own.
    """

    inherit_cache = True
    name = "among"

    def __init__(self, column: sa.ColumnElement[Any], name: str) -> None:
        super().__init__(column, sa.bindparam(name))


@compiles(among)
def _(element: Any, compiler: Any, **options: Any) -> str:
    column, given = element.clauses
    return str(compiler.process(column.in_(sa.bindparam(given.key, expanding=True)), **options))


@compiles(among, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    column, given = element.clauses
    kind = sa.BigInteger if isinstance(column.type, sa.Integer) else sa.Text
    return str(compiler.process(column == sa.any_(sa.bindparam(given.key, type_=ARRAY(kind))), **options))


class exactly(Condition):
    """Whether a column's text is the one that is given under a name, byte by byte: MySQL takes "Ann" for "ann" else."""

    inherit_cache = True
    name = "exactly"

    def __init__(self, column: sa.ColumnElement[Any], name: str) -> None:
        super().__init__(column, sa.bindparam(name, type_=column.type))


@compiles(exactly)
def _(element: Any, compiler: Any, **options: Any) -> str:
    column, given = element.clauses
    return str(compiler.process(column == given, **options))


@compiles(exactly, "mysql")
@compiles(exactly, "mariadb")
def _(element: Any, compiler: Any, **options: Any) -> str:
    # The former is what the index knows, the latter judges.
    column, given = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = {given} AND CAST({column} AS BINARY) = CAST({given} AS BINARY)"


class looked_up(sa.Join):
    """A join that is done as it is written: for each row on the left those of the table on the right, by an index.

    Else the database chooses the order and the way, by what it knows of the tables: nothing, or what was true of ten
    rows. PostgreSQL leaves a subquery with an OFFSET as it is; the others have words for it.
    """

    inherit_cache = True


@compiles(looked_up)
def _(element: Any, compiler: Any, **options: Any) -> str:
    left, right, on = _parts(element, compiler, options)
    return f"{left} {'LEFT OUTER' if element.isouter else 'CROSS'} JOIN {right} ON {on}"


@compiles(looked_up, "mysql")
@compiles(looked_up, "mariadb")
def _(element: Any, compiler: Any, **options: Any) -> str:
    left, right, on = _parts(element, compiler, options)
    return f"{left} {'LEFT OUTER JOIN' if element.isouter else 'STRAIGHT_JOIN'} {right} ON {on}"


@compiles(looked_up, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    left, right, on = _parts(element, compiler, options)
    rows = f"(SELECT * FROM {right} WHERE {on} OFFSET 0) AS {element.right.name}"
    return f"{left} {'LEFT OUTER' if element.isouter else 'CROSS'} JOIN LATERAL {rows}{' ON true' * element.isouter}"


def _parts(element: Any, compiler: Any, options: dict[str, Any]) -> tuple[str, str, str]:
    """Both sides, and the condition. That there is one need not be checked again (``from_linter``)."""
    options = {**options, "from_linter": None, "asfrom": True}
    left, right = (compiler.process(side, **options) for side in (element.left, element.right))
    return left, right, compiler.process(element.onclause)


# SQLite gives out ids by itself only to an INTEGER key.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _key(length: int) -> sa.types.TypeEngine[str]:
    """Text that is compared byte by byte: MySQL's default also takes "é" for "e"."""
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    )


Email = Value = _key(254)
PhoneNumber = _key(64)
Kind = _key(32)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _pair_columns() -> list[sa.schema.SchemaItem]:
    """Two identifiers in order (`state.Pair`). The key begins with a value: of kinds there are few, and PostgreSQL up
    to 16 would look up one alone, and then go through all values of it."""
    names = (("kind", Kind), ("value", Value), ("other_kind", Kind), ("other_value", Value))
    columns = [sa.Column(name, kind, nullable=False) for name, kind in names]
    return [*columns, sa.PrimaryKeyConstraint("value", "kind", "other_value", "other_kind")]


contact = sa.Table(
    "contact",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("email", Email),
    sa.Column("phone_number", PhoneNumber),
    sa.Column("linked_id", BigId, sa.ForeignKey("contact.id"), index=True),
    # Stored, not virtual: PostgreSQL 15 knows no other kind.
    sa.Column(
        "link_precedence",
        sa.String(9),
        sa.Computed("CASE WHEN linked_id IS NULL THEN 'primary' ELSE 'secondary' END", persisted=True),
    ),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("changed_at", UtcDateTime),
    sa.Column("erased_at", UtcDateTime),
    sa.Column("undone_at", UtcDateTime),
    # What it carries beside one email and one phone number: a list of kinds and values.
    sa.Column("others", sa.JSON(none_as_null=True)),
    implicit_returning=False,  # not on MySQL; whoever wants the ids asks the dialect
    sqlite_autoincrement=True,  # ids are never reused
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

NOBODY = 0
"""In the place of the contact that claims an identifier."""

identifier = sa.Table(
    "identifier",
    metadata,
    sa.Column("kind", Kind, primary_key=True),
    sa.Column("value", Email, primary_key=True),
    # The contact that claims it; `NOBODY` of what is only blocked.
    sa.Column("contact_id", BigId, nullable=False, autoincrement=False),
    # The event that blocked it. It stands here so that whoever claims it first meets it, however close they come.
    sa.Column("blocked", sa.BigInteger),
    implicit_returning=False,
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

pair = sa.Table(
    "pair",
    metadata,
    *_pair_columns(),
    sa.Column("seq", BigId, nullable=False, autoincrement=False),
    implicit_returning=False,
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)


def _where(condition: str) -> dict[str, Any]:
    """Of an index that has some rows alone. On MySQL and MariaDB there is no such thing: it has all of them."""
    return {f"{name}_where": sa.text(condition) for name in ("postgresql", "sqlite")}


event = sa.Table(
    "event",
    metadata,
    sa.Column("seq", BigId, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("email", Email),
    sa.Column("phone_number", PhoneNumber),
    sa.Column("raw", sa.JSON, nullable=False),
    sa.Column("norm", sa.String(16), nullable=False),
    sa.Column("contact_id", BigId),
    sa.Column("primary_id", BigId, nullable=False, index=True),
    sa.Column("demoted", sa.JSON, nullable=False),
    sa.Column("version_before", sa.BigInteger, nullable=False),
    sa.Column("version_after", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.String(254)),
    sa.Column("reason", sa.Text),
    sa.Column("request_id", sa.String(128)),
    sa.Column("detail", sa.JSON(none_as_null=True)),
    sa.Column("others", sa.JSON(none_as_null=True)),
    sa.Column("source", sa.String(64).with_variant(mysql.VARCHAR(64, charset="utf8mb4"), "mysql", "mariadb")),
    sa.Column("occurred_at", UtcDateTime),
    # Of stewards' events, which are few. Under different conditions, so that only the right one can be used for a page.
    sa.Index("ix_event_kind_seq", "kind", "seq", **_where("kind <> 'identify'")),
    sa.Index("ix_event_actor_kind_seq", "actor", "kind", "seq", **_where("actor IS NOT NULL")),
    implicit_returning=False,
    sqlite_autoincrement=True,
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)

MYSQL: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB", "implicit_returning": False}

# What follows is written by a steward's verbs, and (withheld_pair) where a ban stands in the way of a request.

# A pair that is not evidence: kept back by a ban or a limit, or banned itself.
withheld_pair = sa.Table(
    "withheld_pair",
    metadata,
    *_pair_columns(),
    sa.Column("seq", BigId, nullable=False, autoincrement=False, index=True),
    sa.Column("banned", sa.Boolean, nullable=False),
    # The kind whose limit kept it back; else a ban did.
    sa.Column("limit_kind", Kind),
    sa.Index(None, "other_value"),
    sa.Index(None, "banned", "seq"),
    sa.Index(None, "banned", "limit_kind", "seq"),
    **MYSQL,
)

# Two contacts that must never be of one cluster, the smaller id first.
ban = sa.Table(
    "ban",
    metadata,
    sa.Column("contact_id", BigId, primary_key=True, autoincrement=False),
    sa.Column("other_id", BigId, primary_key=True, autoincrement=False, index=True),
    sa.Column("seq", BigId, nullable=False, autoincrement=False, index=True),
    **MYSQL,
)

# Which contacts a steward's verb was about, or (primaries) a request was kept from: the way from a contact to events of
# clusters that it is no longer in, or never was.
event_contact = sa.Table(
    "event_contact",
    metadata,
    sa.Column("contact_id", BigId, primary_key=True, autoincrement=False),
    sa.Column("seq", BigId, primary_key=True, autoincrement=False),
    **MYSQL,
)

# How many contacts (kind "") or values of a kind a cluster has, where these are many: the way to the largest clusters.
cluster_count = sa.Table(
    "cluster_count",
    metadata,
    sa.Column("primary_id", BigId, primary_key=True, autoincrement=False),
    sa.Column("kind", Kind, primary_key=True),
    sa.Column("count", BigId, nullable=False, autoincrement=False),
    sa.Index(None, "kind", "count", "primary_id"),
    **MYSQL,
)

# The kinds and limits under which events were decided, by their `norm`. Where none is declared, there is no row.
rule_set = sa.Table(
    "rule_set",
    metadata,
    sa.Column("norm", sa.String(16), primary_key=True),
    sa.Column("kinds", sa.Text, nullable=False),
    **MYSQL,
)

# Who claimed an identifier before somebody else did, or nobody: the way to what was known at an earlier time.
former_claim = sa.Table(
    "former_claim",
    metadata,
    sa.Column("kind", Kind, primary_key=True),
    sa.Column("value", Email, primary_key=True),
    sa.Column("contact_id", BigId, primary_key=True, autoincrement=False),
    **MYSQL,
)
