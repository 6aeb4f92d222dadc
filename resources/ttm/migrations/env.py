"""How Alembic reaches the database: through the connection, schema and zone that the caller gives."""

from alembic import context

from resources.ttm.database import VERSION_TABLE

given = context.config.attributes
context.configure(
    connection=given["connection"], version_table=VERSION_TABLE, version_table_schema=given["schema"]
)
context.run_migrations()
