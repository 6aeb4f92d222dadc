"""Alembic runs this: the migrations of the schema `scoring`, on the connection that the caller gives."""

from alembic import context

from resources.scoring_service.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
