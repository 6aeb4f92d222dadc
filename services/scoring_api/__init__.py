"""The scoring service: tasks, offline conversions and webhooks over HTTP."""
