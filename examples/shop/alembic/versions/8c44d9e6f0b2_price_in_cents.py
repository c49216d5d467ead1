"""Prices as whole cents"""

import sqlalchemy as sa
from alembic import op

revision = "8c44d9e6f0b2"
down_revision = "5a1e0c3b7d21"

orders = sa.table("orders", sa.column("price", sa.Float), sa.column("price_cents", sa.Integer))


def upgrade():
    op.add_column("orders", sa.Column("price_cents", sa.Integer, nullable=True))
    op.execute(orders.update().values(price_cents=sa.cast(sa.func.round(orders.c.price * 100), sa.Integer)))
    with op.batch_alter_table("orders") as batch:
        batch.alter_column("price_cents", existing_type=sa.Integer, nullable=False)
        batch.drop_column("price")


def downgrade():
    op.add_column("orders", sa.Column("price", sa.Float, nullable=True))
    op.execute(orders.update().values(price=orders.c.price_cents / 100.0))
    with op.batch_alter_table("orders") as batch:
        batch.alter_column("price", existing_type=sa.Float, nullable=False)
        batch.drop_column("price_cents")
