"""The log, and the tables that follow from it.

Revision: 0001, the first
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from identity_graphql.storage.tables import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def key(length: int) -> sa.types.TypeEngine[str]:
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    )


def upgrade() -> None:
    op.create_table(
        "contact",
        sa.Column("id", big_id),
        sa.Column("email", key(254)),
        sa.Column("phone_number", key(64)),
        sa.Column("linked_id", big_id),
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
        sa.ForeignKeyConstraint(["linked_id"], ["contact.id"], name=op.f("fk_contact_linked_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contact")),
        sqlite_autoincrement=True,
        **MYSQL,
    )
    op.create_index(op.f("ix_contact_linked_id"), "contact", ["linked_id"])
    op.create_table(
        "identifier",
        sa.Column("kind", key(16)),
        sa.Column("value", key(254)),
        sa.Column("contact_id", big_id, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("kind", "value", name=op.f("pk_identifier")),
        **MYSQL,
    )
    op.create_table(
        "pair",
        sa.Column("email", key(254)),
        sa.Column("phone_number", key(64)),
        sa.Column("seq", big_id, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("email", "phone_number", name=op.f("pk_pair")),
        **MYSQL,
    )
    op.create_table(
        "event",
        sa.Column("seq", big_id),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("email", key(254)),
        sa.Column("phone_number", key(64)),
        sa.Column("raw", sa.JSON, nullable=False),
        sa.Column("norm", sa.String(16), nullable=False),
        sa.Column("contact_id", big_id),
        sa.Column("primary_id", big_id, nullable=False),
        sa.Column("demoted", sa.JSON, nullable=False),
        sa.Column("version_before", sa.BigInteger, nullable=False),
        sa.Column("version_after", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(254)),
        sa.Column("reason", sa.Text),
        sa.Column("request_id", sa.String(128)),
        sa.Column("detail", sa.JSON),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sqlite_autoincrement=True,
        **MYSQL,
    )


def downgrade() -> None:
    for table in ("event", "pair", "identifier", "contact"):
        op.drop_table(table)
