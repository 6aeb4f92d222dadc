"""The `svod` command: brings Dagster, the warehouse and the sandbox together; no logic of its own."""
