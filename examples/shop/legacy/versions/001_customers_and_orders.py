from sqlalchemy import Column, Float, ForeignKey, Integer, MetaData, String, Table


def upgrade(migrate_engine):
    meta = MetaData()
    meta.bind = migrate_engine
    customers = Table(
        "customers",
        meta,
        Column("id", Integer, primary_key=True, nullable=False),
        Column("name", String(100), nullable=False),
    )
    orders = Table(
        "orders",
        meta,
        Column("id", Integer, primary_key=True, nullable=False),
        Column("customer_id", Integer, ForeignKey("customers.id"), nullable=False),
        Column("item", String(100), nullable=False),
        Column("price", Float, nullable=False),
    )
    for table in (customers, orders):
        table.create()


def downgrade(migrate_engine):
    meta = MetaData()
    meta.bind = migrate_engine
    for name in ("orders", "customers"):
        Table(name, meta, autoload=True).drop()
