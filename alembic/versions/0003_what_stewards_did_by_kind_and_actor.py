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

# A request has no actor, so its event costs nothing here; on MySQL and MariaDB, which have no such indexes, little.
WHERE_ACTOR: dict[str, Any] = {f"{name}_where": sa.text("actor IS NOT NULL") for name in ("postgresql", "sqlite")}


def upgrade() -> None:
    op.create_index("ix_event_kind_seq", "event", ["kind", "seq"], **WHERE_ACTOR)
    op.create_index("ix_event_actor_kind_seq", "event", ["actor", "kind", "seq"], **WHERE_ACTOR)


def downgrade() -> None:
    op.drop_index("ix_event_actor_kind_seq", "event")
    op.drop_index("ix_event_kind_seq", "event")
