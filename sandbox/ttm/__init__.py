"""A ticket system on loopback: login, saved filters, pages, tickets, faults by script."""

from sandbox.ttm.server import serve
from sandbox.ttm.system import ARREARS, STOPPED, SystemConfig, TicketSystem

__all__ = ["ARREARS", "STOPPED", "SystemConfig", "TicketSystem", "serve"]
