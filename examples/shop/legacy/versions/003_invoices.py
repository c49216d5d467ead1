from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, Table


def upgrade(migrate_engine):
    meta = MetaData()
    meta.bind = migrate_engine
    orders = Table("orders", meta, autoload=True)
    Index("ix_orders_customer_id", orders.c.customer_id).create(migrate_engine)
    Table(
        "invoices",
        meta,
        Column("id", Integer, primary_key=True, nullable=False),
        Column("order_id", Integer, ForeignKey("orders.id"), nullable=False),
    ).create()


def downgrade(migrate_engine):
    meta = MetaData()
    meta.bind = migrate_engine
    Table("invoices", meta, autoload=True).drop()
    orders = Table("orders", meta, autoload=True)
    Index("ix_orders_customer_id", orders.c.customer_id).drop(migrate_engine)
