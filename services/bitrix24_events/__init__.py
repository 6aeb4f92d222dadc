"""Receives the portal's outgoing webhooks: deletions are noticed without an application."""
