"""The way to what stewards did: by kind, and by actor.

Revision: 0003, after 0002
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_event_kind_seq", "event", ["kind", "seq"], **where("kind <> 'identify'"))
    op.create_index("ix_event_actor_kind_seq", "event", ["actor", "kind", "seq"], **where("actor IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_event_actor_kind_seq", "event")
    op.drop_index("ix_event_kind_seq", "event")


def where(condition: str) -> dict[str, Any]:
    """Requests are not in the index, and cost nothing; but on MySQL and MariaDB, which have no such indexes."""
    return {f"{name}_where": sa.text(condition) for name in ("postgresql", "sqlite")}
