"""How alembic reaches the shop's database; for SQLAlchemy 1.4 and 2."""

from logging.config import fileConfig

from alembic import context
from sqlalchemy import engine_from_config, event
from sqlalchemy.pool import NullPool

config = context.config
if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def make_transactional(engine):
    """Let a failed migration leave nothing behind on SQLite, as on PostgreSQL.

    SQLite can take back DDL, but Python's sqlite3 begins no transaction before it. So it begins none at all
    (isolation_level), and SQLAlchemy's begin does.
    """

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(dbapi_connection, _record):
        dbapi_connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")


def run_online():
    engine = engine_from_config(config.get_section(config.config_ini_section), poolclass=NullPool)
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        make_transactional(engine)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            # ALTER TABLE cannot do everything on SQLite; batch mode copies the table where it cannot.
            render_as_batch=is_sqlite,
            transactional_ddl=True if is_sqlite else None,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


def run_offline():
    context.configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
