"""How each outside system is spoken to: clients, limits, errors. No Dagster asset is known here."""
