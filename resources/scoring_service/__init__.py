"""What the scoring service and Dagster share: the ledger of tasks, webhooks, conversions and uploads."""
