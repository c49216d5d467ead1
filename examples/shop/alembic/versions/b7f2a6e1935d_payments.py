"""Payments of invoices"""

import sqlalchemy as sa
from alembic import op

revision = "b7f2a6e1935d"
down_revision = "8c44d9e6f0b2"


def upgrade():
    op.create_table(
        "payments",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("invoice_id", sa.Integer, sa.ForeignKey("invoices.id"), nullable=False),
        sa.Column("cents", sa.Integer, nullable=False),
    )


def downgrade():
    op.drop_table("payments")
