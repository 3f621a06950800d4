"""Alembic's entry: runs the migrations on the connection that `heroes_core.migrate` gives."""

from alembic import context

from heroes_core.migrate import load_tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=load_tables(),
    render_as_batch=True,
    compare_type=False,
    transaction_per_migration=False,
    user_module_prefix="heroes_core.store.",
)
with context.begin_transaction():
    context.run_migrations()
