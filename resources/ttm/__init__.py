"""Trouble tickets: what the hub, the connector, the requester and the assets share.

Imports nothing here: the connector is installed without Dagster and takes only `protocol` and `settings`.
"""
