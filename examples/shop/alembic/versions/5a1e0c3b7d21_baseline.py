"""What the legacy repository had made by its version 3"""

import sqlalchemy as sa
from alembic import op

revision = "5a1e0c3b7d21"
down_revision = None


def upgrade():
    op.create_table(
        "customers",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("customer_id", sa.Integer, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("item", sa.String(100), nullable=False),
        sa.Column("price", sa.Float, nullable=False),
        sa.Column("status", sa.String(20), nullable=False, server_default="new"),
    )
    op.create_index("ix_orders_customer_id", "orders", ["customer_id"])
    op.create_table(
        "invoices",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("order_id", sa.Integer, sa.ForeignKey("orders.id"), nullable=False),
    )


def downgrade():
    for table in ("invoices", "orders", "customers"):
        op.drop_table(table)
