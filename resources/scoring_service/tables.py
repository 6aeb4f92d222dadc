"""Tables of the scoring service, in the schema `scoring` of the operational database.

Migrations make them (`services/scoring_api/migrations`); a test compares the two.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, UUID

SCHEMA = "scoring"
metadata = sa.MetaData(schema=SCHEMA)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def _id() -> sa.Column[object]:
    return sa.Column("id", UUID(as_uuid=True), primary_key=True)


tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("fingerprint", BYTEA, nullable=False, unique=True, comment="HMAC of the token: finds it again"),
    sa.Column("cipher", sa.Text, nullable=False, comment="The OAuth token, encrypted by Fernet"),
    _now("created_at"),
)
tasks = sa.Table(
    "tasks",
    metadata,
    _id(),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    sa.Column("progress", sa.Integer, nullable=False, server_default="0"),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    _now("started_at"),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    sa.Column("error", sa.Text),
    sa.Column("params", JSONB, nullable=False, comment="date and counter; never the token"),
    sa.Column("token_id", sa.ForeignKey(tokens.c.id), nullable=False),
    sa.Column("run_id", sa.Text, comment="The Dagster run that works on it"),
    sa.Index("tasks_open", "started_at", postgresql_where=sa.text("finished_at IS NULL")),
)
results = sa.Table(
    "results",
    metadata,
    sa.Column("task_id", sa.ForeignKey(tasks.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("time_zone", sa.Text, nullable=False, comment="The counter's zone, in which the times are"),
    sa.Column("result_json", JSONB, nullable=False, comment="visitId, clientId, dateTime, visitDuration"),
)
webhooks = sa.Table(
    "webhooks",
    metadata,
    _id(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("counter_id", sa.Integer, nullable=False),
    sa.Column("token_id", sa.ForeignKey(tokens.c.id), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("secret_hash", BYTEA, nullable=False, comment="SHA-256 of the secret"),
    _now("created_at"),
    _now("updated_at"),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("deleted_at", sa.DateTime(timezone=True), comment="Its batches are still to be uploaded"),
)
batches = sa.Table(
    "batches",
    metadata,
    _id(),
    sa.Column("source", sa.Text, nullable=False, comment="webhook, single, bulk or csv"),
    sa.Column("webhook_id", sa.ForeignKey(webhooks.c.id)),
    sa.Column("task_id", sa.ForeignKey(tasks.c.id)),
    sa.Column("counter_id", sa.Integer, nullable=False),
    sa.Column("token_id", sa.ForeignKey(tokens.c.id), nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    _now("created_at"),
    _now("updated_at"),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("processed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("errors", JSONB, comment="Texts for the user"),
    sa.Column("note", sa.Text, comment="What of the request was left out, and why"),
    sa.Index("batches_of_webhook", "webhook_id", "created_at"),
    sa.Index("batches_of_task", "task_id", postgresql_where=sa.text("task_id IS NOT NULL")),
    sa.Index("batches_by_time", "created_at"),
)
uploads = sa.Table(
    "uploads",
    metadata,
    _id(),
    sa.Column("counter_id", sa.Integer, nullable=False),
    sa.Column("token_id", sa.ForeignKey(tokens.c.id), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("id_type", sa.Text, nullable=False, comment="ClientId, UserId, Yclid or PurchaseId"),
    sa.Column("state", sa.Text, nullable=False, comment="ready, sending, sent, done or failed"),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("splits", sa.Integer, nullable=False, server_default="0", comment="How often it was halved"),
    sa.Column(
        "version", sa.Integer, nullable=False, server_default="0", comment="One more if cut or retried"
    ),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("sending_at", sa.DateTime(timezone=True), comment="The intent, written before the request"),
    sa.Column("sent_at", sa.DateTime(timezone=True)),
    sa.Column("polled_at", sa.DateTime(timezone=True)),
    sa.Column("metrika_id", sa.BigInteger),
    sa.Column("metrika_status", sa.Text),
    sa.Column("line_quantity", sa.Integer, comment="Rows that passed Metrika's validation"),
    sa.Column("error", sa.Text),
    _now("created_at"),
    sa.Index("uploads_open", "next_at", postgresql_where=sa.text("state IN ('ready', 'sending', 'sent')")),
)
conversions = sa.Table(
    "conversions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("batch_id", sa.ForeignKey(batches.c.id), nullable=False),
    sa.Column("client_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("yclid", sa.Text),
    sa.Column("purchase_id", sa.Text),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("date_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("price", sa.Numeric),
    sa.Column("currency", sa.Text),
    sa.Column("upload_id", sa.ForeignKey(uploads.c.id)),
    sa.Index("conversions_of_batch", "batch_id"),
    sa.Index("conversions_of_upload", "upload_id", postgresql_where=sa.text("upload_id IS NOT NULL")),
    sa.Index("conversions_unassigned", "id", postgresql_where=sa.text("upload_id IS NULL")),
)
sent_visits = sa.Table(
    "sent_visits",
    metadata,
    sa.Column("counter_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("visit_id", sa.Text, primary_key=True),
    comment="Scored visits whose conversion was accepted: none is sent again",
)
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body_hash", BYTEA, nullable=False),
    sa.Column("resource_id", UUID(as_uuid=True), nullable=False),
    _now("created_at"),
    sa.Index("idempotency_keys_by_time", "created_at"),
)
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _now("at"),
    sa.Column("actor", sa.Text, nullable=False, comment="admin, page or anonymous, with the address"),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
)
