"""What a steward's verbs leave behind, and the way to the log of a cluster.

Revision: 0002, after 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

from identity_graphql.errors import ConfigurationError
from identity_graphql.storage.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
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
    op.add_column("contact", sa.Column("erased_at", UtcDateTime))
    op.add_column("contact", sa.Column("undone_at", UtcDateTime))
    op.create_index(op.f("ix_event_primary_id"), "event", ["primary_id"])
    op.create_table(
        "withheld_pair",
        sa.Column("email", key(254)),
        sa.Column("phone_number", key(64)),
        sa.Column("seq", big_id, nullable=False, autoincrement=False),
        sa.Column("banned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("email", "phone_number", name=op.f("pk_withheld_pair")),
        **MYSQL,
    )
    op.create_index(op.f("ix_withheld_pair_phone_number"), "withheld_pair", ["phone_number"])
    op.create_index(op.f("ix_withheld_pair_seq"), "withheld_pair", ["seq"])
    op.create_table(
        "ban",
        sa.Column("contact_id", big_id, autoincrement=False),
        sa.Column("other_id", big_id, autoincrement=False),
        sa.Column("seq", big_id, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("contact_id", "other_id", name=op.f("pk_ban")),
        **MYSQL,
    )
    op.create_index(op.f("ix_ban_other_id"), "ban", ["other_id"])
    op.create_index(op.f("ix_ban_seq"), "ban", ["seq"])
    op.create_table(
        "event_contact",
        sa.Column("contact_id", big_id, autoincrement=False),
        sa.Column("seq", big_id, autoincrement=False),
        sa.PrimaryKeyConstraint("contact_id", "seq", name=op.f("pk_event_contact")),
        **MYSQL,
    )
    op.create_table(
        "former_claim",
        sa.Column("kind", key(16)),
        sa.Column("value", key(254)),
        sa.Column("contact_id", big_id, autoincrement=False),
        sa.PrimaryKeyConstraint("kind", "value", "contact_id", name=op.f("pk_former_claim")),
        **MYSQL,
    )


def downgrade() -> None:
    if not context.is_offline_mode() and not context.config.attributes.get("reset"):
        refuse_to_forget(op.get_bind())
    for table in ("former_claim", "event_contact", "ban", "withheld_pair"):
        op.drop_table(table)
    op.drop_index(op.f("ix_event_primary_id"), "event")
    op.drop_column("contact", "undone_at")
    op.drop_column("contact", "erased_at")


def refuse_to_forget(connection: sa.Connection) -> None:
    """Bans that are lost are not missed until the links that they forbid are made again."""
    found = connection.execute(
        sa.text("SELECT seq, kind FROM event WHERE kind <> 'identify' OR outcome = 'WITHHELD' ORDER BY seq LIMIT 1")
    ).one_or_none()
    if found is not None:
        raise ConfigurationError(
            f"The log holds what stewards decided (first in event {found.seq}, {found.kind}), and revision 0001 has no "
            "place for it: what they banned would be linked again. Stay at revision 0002, go back to a backup from "
            "before the upgrade, or empty the database with `identity-graphql migrate --reset`."
        )
