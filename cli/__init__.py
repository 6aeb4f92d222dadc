"""The `svod` command: brings Dagster, the warehouse and the sandbox together, and holds no logic of its own."""
