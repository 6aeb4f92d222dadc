"""The hub: connectors and requesters of trouble tickets connect to it, it opens no connection itself."""
