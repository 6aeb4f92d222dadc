"""The connector: runs beside the ticket system, reads from it what the hub's requesters ask for.

Needs websockets, httpx and tzdata, nothing of Dagster or ClickHouse; what it shares with the hub is in
`resources/ttm/{protocol,handshake,settings}.py`, which need the standard library only.
"""
