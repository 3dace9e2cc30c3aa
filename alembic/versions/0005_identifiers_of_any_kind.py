"""Identifiers of any kind, where a fact is from and when it was true, and what was kept back by which limit.

Revision: 0005, after 0004
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

from identity_graphql.errors import ConfigurationError

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

event = sa.table(
    "event",
    sa.column("seq", sa.BigInteger),
    sa.column("kind"),
    sa.column("outcome"),
    sa.column("phone_number"),
    sa.column("contact_id"),
    sa.column("primary_id"),
    sa.column("demoted", sa.JSON),
    sa.column("detail", sa.JSON),
    sa.column("others", sa.JSON),
    sa.column("source"),
    sa.column("occurred_at"),
)
contact = sa.table("contact", sa.column("others", sa.JSON))
withheld_pair = sa.table("withheld_pair", sa.column("limit_kind"))

event_contact = sa.table("event_contact", sa.column("seq"))
requests_that_tell_more = sa.select(event.c.seq).where(event.c.kind == "identify", event.c.outcome == "WITHHELD")

Document = dict[str, Any]

MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
SOURCE = sa.String(64).with_variant(mysql.VARCHAR(64, charset="utf8mb4"), "mysql", "mariadb")
KIND = (
    sa.String(32)
    .with_variant(sa.String(32, collation="C"), "postgresql")
    .with_variant(mysql.VARCHAR(32, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
)


def added() -> dict[str, list[sa.Column[Any]]]:
    return {
        "contact": [sa.Column("others", sa.JSON)],
        "event": [sa.Column("others", sa.JSON), sa.Column("source", SOURCE), sa.Column("occurred_at", MOMENT)],
        "withheld_pair": [sa.Column("limit_kind", KIND)],
    }


def upgrade() -> None:
    for table, columns in added().items():
        for column in columns:
            op.add_column(table, column)
    for names in (["banned", "seq"], ["banned", "limit_kind", "seq"]):
        op.create_index(op.f(f"ix_withheld_pair_{'_'.join(names)}"), "withheld_pair", names)
    op.create_table(
        "rule_set",
        sa.Column("norm", sa.String(16), nullable=False),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("norm", name=op.f("pk_rule_set")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    rewrite(event.c.kind == "undo", upgraded)
    kept_back()


def downgrade() -> None:
    if not context.is_offline_mode() and not context.config.attributes.get("reset"):
        refuse_to_forget(op.get_bind())
    # The log of 0004 tells by the outcome what was kept back, and does not name the clusters that have it.
    op.execute(event_contact.delete().where(event_contact.c.seq.in_(requests_that_tell_more)))
    rewrite(event.c.outcome == "WITHHELD", lambda detail: None)
    rewrite(event.c.kind == "undo", downgraded)
    op.drop_table("rule_set")
    for name in ("banned_seq", "banned_limit_kind_seq"):
        op.drop_index(op.f(f"ix_withheld_pair_{name}"), "withheld_pair")
    for table, columns in reversed(added().items()):
        for column in columns:
            op.drop_column(table, column.name)


def kept_back() -> None:
    """Of what was withheld, the phone number waited."""
    if context.is_offline_mode():
        return
    connection = op.get_bind()
    withheld = sa.select(event.c.seq, event.c.phone_number).where(event.c.outcome == "WITHHELD")
    for seq, phone_number in connection.execute(withheld).all():
        put(connection, seq, kept_back_of(phone_number, {}))


def kept_back_of(phone_number: str, detail: Document) -> Document:
    """The document of a request whose phone number was kept back by a ban; whom else it names stays."""
    others = {"kept_from": detail["kept_from"]} if "kept_from" in detail else {}
    return {"kept_back": [[["phone_number", phone_number], None]], **others}


def rewrite(of: sa.ColumnElement[bool], rewritten: Callable[[Document], Document | None]) -> None:
    if context.is_offline_mode():
        # SQL alone cannot rewrite the log: this fails where there is something to rewrite.
        op.execute(event.update().where(event.c.kind == "undo").values(kind=sa.null()))
        return
    connection = op.get_bind()
    for seq, detail in connection.execute(sa.select(event.c.seq, event.c.detail).where(of)).all():
        put(connection, seq, rewritten(detail))


def put(connection: sa.Connection, seq: int, detail: Document | None) -> None:
    connection.execute(event.update().where(event.c.seq == seq).values(detail=sa.null() if detail is None else detail))


def upgraded(detail: Document) -> Document:
    """The document of an undo, which may ban several pairs."""
    asked = dict(detail["asked"])
    pair = asked.pop("pair", None)
    return {**detail, "asked": {**asked, "pairs": [] if pair is None else [pair]}}


def downgraded(detail: Document) -> Document:
    """The other way round."""
    asked = dict(detail["asked"])
    pairs = asked.pop("pairs", [])
    return {**detail, "asked": {**asked, "pair": pairs[0] if pairs else None}}


def refuse_to_forget(connection: sa.Connection) -> None:
    """What 0004 has no place for would be lost, and its log would no longer lead to its tables."""
    lost = (
        (contact, contact.c.others.is_not(None)),
        (event, event.c.others.is_not(None) | event.c.source.is_not(None) | event.c.occurred_at.is_not(None)),
        (withheld_pair, withheld_pair.c.limit_kind.is_not(None)),
    )
    looked_for = [sa.select(sa.literal(1)).select_from(table).where(condition).limit(1) for table, condition in lost]
    if any(connection.execute(one).first() for one in looked_for) or any_limit_in_the_log(connection):
        raise ConfigurationError(
            "The database has what revision 0004 has no place for: identifiers of other kinds than email and phone "
            "number, sources, times of occurrence, or limits. Stay at revision 0005, go back to a backup from before "
            "the upgrade, or empty the database with `identity-graphql migrate --reset`."
        )


def any_limit_in_the_log(connection: sa.Connection) -> bool:
    """Whether a request came over a limit: what was kept back need not be the phone number then, as it is in 0004."""
    told = sa.select(event.c.phone_number, event.c.detail).where(
        event.c.kind == "identify", event.c.detail.is_not(None)
    )
    return any(detail != kept_back_of(phone_number, detail) for phone_number, detail in connection.execute(told))
