from sqlalchemy import Column, MetaData, String, Table


def upgrade(migrate_engine):
    meta = MetaData()
    meta.bind = migrate_engine
    orders = Table("orders", meta, autoload=True)
    orders.create_column(Column("status", String(20), nullable=False, server_default="new"))


def downgrade(migrate_engine):
    meta = MetaData()
    meta.bind = migrate_engine
    orders = Table("orders", meta, autoload=True)
    orders.c.status.drop()
