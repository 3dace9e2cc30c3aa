"""Identifiers that count as not given; and how large clusters are, where that is much: the way to the largest.

Revision: 0006, after 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

event = sa.table("event", sa.column("kind"))
identifier = sa.table("identifier", sa.column("blocked"))


KIND = (
    sa.String(32)
    .with_variant(sa.String(32, collation="C"), "postgresql")
    .with_variant(mysql.VARCHAR(32, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
)

# In SQL that all three databases understand. From 10 on are contacts, emails and phone numbers counted, others from 2.
CONTACTS = """
INSERT INTO cluster_count (primary_id, kind, count)
SELECT coalesce(linked_id, id), '', count(*) FROM contact WHERE deleted_at IS NULL
GROUP BY coalesce(linked_id, id) HAVING count(*) >= 10
"""
VALUES = """
INSERT INTO cluster_count (primary_id, kind, count)
SELECT coalesce(contact.linked_id, contact.id), identifier.kind, count(*)
FROM identifier JOIN contact ON contact.id = identifier.contact_id
GROUP BY coalesce(contact.linked_id, contact.id), identifier.kind
HAVING count(*) >= CASE WHEN identifier.kind IN ('email', 'phone_number') THEN 10 ELSE 2 END
"""


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":  # nobody writes what would be missing here
        op.execute("LOCK TABLE contact, identifier IN SHARE ROW EXCLUSIVE MODE")
    op.create_table(
        "cluster_count",
        sa.Column("primary_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", KIND, nullable=False),
        sa.Column("count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("primary_id", "kind", name=op.f("pk_cluster_count")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
    )
    op.execute(CONTACTS)
    op.execute(VALUES)
    op.create_index(op.f("ix_cluster_count_kind_count_primary_id"), "cluster_count", ["kind", "count", "primary_id"])
    # Without a default, and without an index: no row is written, however many there are.
    op.add_column("identifier", sa.Column("blocked", sa.BigInteger))


def downgrade() -> None:
    refuse_what_cannot_be_kept()
    op.drop_table("cluster_count")
    with op.batch_alter_table("identifier") as batch:
        batch.drop_column("blocked")


def refuse_what_cannot_be_kept() -> None:
    """A program of 0005 cannot read the log of blocks, and would link by what is blocked."""
    if context.is_offline_mode():
        return
    connection = op.get_bind()
    kinds = event.c.kind.in_(["block_identifier", "unblock_identifier"])
    for condition, table in ((identifier.c.blocked.is_not(None), identifier), (kinds, event)):
        if (
            connection.execute(sa.select(sa.literal(1)).select_from(table).where(condition).limit(1)).first()
            is not None
        ):
            raise RuntimeError("Identifiers were blocked in this database, for which revision 0005 has no place.")
