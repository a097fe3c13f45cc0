"""Alembic's entry: runs the migrations on the connection that `SqlStore` hands over, in its transaction."""

from alembic import context

from stars_guard.audit._tables import metadata

__all__: list[str] = []

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
