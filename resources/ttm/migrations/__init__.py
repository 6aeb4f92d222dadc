"""Alembic's migrations of the ticket tables; `resources.ttm.database.TtmDatabase.migrate` runs them."""
