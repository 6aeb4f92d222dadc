"""The tables; those of the original tool are kept with their rows, and get the types and columns of ours.

Everything runs in one transaction with the schema as search path. Stamps without a zone were UTC.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None

EXPIRED = """
create table if not exists expires_tickets (
  ticket_number bigint primary key,
  responsible   text not null,
  comment       text not null,
  add_date      date not null)"""
EXPIRED_MORE = """
alter table expires_tickets
  add column if not exists outcome text,
  add column if not exists sla_minutes numeric,
  add column if not exists counted_seconds bigint,
  add column if not exists overrun_seconds bigint,
  add column if not exists breach_task text,
  add column if not exists breach_unit text,
  add column if not exists breach_at timestamptz,
  add column if not exists loaded_at timestamptz not null default now()"""
UNITS = """
create table if not exists expires_ticket_units (
  ticket_number bigint references expires_tickets on delete cascade,
  unit    text,
  seconds bigint not null,
  primary key (ticket_number, unit))"""
STOPPED = """
create table if not exists stopped_tickets (
  task_number     text primary key,
  agreement_pause timestamptz,
  begin_pause     timestamptz,
  end_pause       timestamptz,
  who_paused      text,
  last_comment    text,
  who_ask_pause   text,
  sla             timestamptz)"""
STOPPED_MORE = """
alter table stopped_tickets
  add column if not exists ticket_number bigint,
  add column if not exists synced_at timestamptz not null default now()"""
# task numbers are <ticket>-<n>; a row of another shape goes with the next reading of the list
STOPPED_NUMBERS = """
update stopped_tickets set ticket_number = coalesce(substring(task_number from '^([0-9]{1,18})-')::bigint, 0)
where ticket_number is null"""
LOADS = """
create table if not exists ttm_loads (
  table_name  text,
  day         text not null default '',
  started_at  timestamptz not null,
  complete_at timestamptz,
  listed      integer not null default 0,
  row_count   integer not null default 0,
  failed      integer not null default 0,
  problem     text,
  primary key (table_name, day))"""
COMMENTS = {
    "table expires_tickets": "Tickets that the dashboard called overdue, by their latest closing",
    "column expires_tickets.add_date": "Business date of the closing",
    "table expires_ticket_units": "Counted seconds of each unit of a ticket",
    "table stopped_tickets": "Tickets that are suspended now",
    "column stopped_tickets.sla": "Control date of the SLA: the deadline",
    "table ttm_loads": "How each table was loaded last; day is empty for the current list",
}
EXPIRED_TYPES = {"ticket_number": "bigint", "responsible": "text", "comment": "text", "add_date": "date"}
STOPPED_TYPES = {
    "task_number": "text",
    **dict.fromkeys(("agreement_pause", "begin_pause", "end_pause", "sla"), "timestamp with time zone"),
    **dict.fromkeys(("who_paused", "last_comment", "who_ask_pause"), "text"),
}


def upgrade() -> None:
    op.execute(EXPIRED)
    _retype("expires_tickets", EXPIRED_TYPES)
    for column in ("responsible", "comment"):
        op.execute(f"update expires_tickets set {column} = '' where {column} is null")
        op.execute(f"alter table expires_tickets alter column {column} set not null")
    _require_dates()
    op.execute(EXPIRED_MORE)
    op.execute("create index if not exists expires_tickets_add_date on expires_tickets (add_date)")
    op.execute(UNITS)
    op.execute(STOPPED)
    _retype("stopped_tickets", STOPPED_TYPES)
    op.execute(STOPPED_MORE)
    op.execute(STOPPED_NUMBERS)
    op.execute("alter table stopped_tickets alter column ticket_number set not null")
    op.execute(LOADS)
    for what, text in COMMENTS.items():
        op.execute(f"comment on {what} is '{text}'")


def _retype(table: str, wanted: dict[str, str]) -> None:
    """Give columns of an existing table the types of ours; nothing for those that have them."""
    found = op.get_bind().execute(
        sa.text(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = current_schema() and table_name = :table"
        ),
        {"table": table},
    )
    changes = [
        f"alter column {name} type {wanted[name]} using {_cast(name, now, wanted[name])}"
        for name, now in found
        if name in wanted and now != wanted[name]
    ]
    if changes:
        op.execute(f"alter table {table} {', '.join(changes)}")


def _cast(column: str, now: str, wanted: str) -> str:
    if now != "timestamp without time zone" and not now.startswith("timestamp"):
        return f"{column}::{wanted}"
    instant = f"({column} at time zone 'UTC')" if now == "timestamp without time zone" else column
    if wanted != "date":
        return instant
    zone = context.config.attributes["zone"].replace("'", "''")
    return f"({instant} at time zone '{zone}')::date"


def _require_dates() -> None:
    """Rows of the original without a date are kept, so the column may then be empty."""
    undated = op.get_bind().execute(
        sa.text("select exists (select from expires_tickets where add_date is null)")
    )
    if not undated.scalar_one():
        op.execute("alter table expires_tickets alter column add_date set not null")


def downgrade() -> None:
    raise NotImplementedError("The original's types hold less than these: there is no way back.")
