"""The ledger: tokens, tasks, webhooks, batches of conversions, uploads, idempotency keys, audit log"""

import re

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE scoring.tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea NOT NULL UNIQUE,
    cipher text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE scoring.tasks (
    id uuid PRIMARY KEY,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'done', 'failed')),
    progress int NOT NULL DEFAULT 0,
    message text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    error text,
    params jsonb NOT NULL,
    token_id bigint NOT NULL REFERENCES scoring.tokens,
    run_id text
);
CREATE INDEX tasks_open ON scoring.tasks (started_at) WHERE finished_at IS NULL;
CREATE TABLE scoring.results (
    task_id uuid PRIMARY KEY REFERENCES scoring.tasks ON DELETE CASCADE,
    time_zone text NOT NULL,
    result_json jsonb NOT NULL
);
CREATE TABLE scoring.webhooks (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    counter_id int NOT NULL,
    token_id bigint NOT NULL REFERENCES scoring.tokens,
    description text,
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    is_active boolean NOT NULL DEFAULT true,
    deleted_at timestamptz
);
CREATE TABLE scoring.batches (
    id uuid PRIMARY KEY,
    source text NOT NULL CHECK (source IN ('webhook', 'single', 'bulk', 'csv')),
    webhook_id uuid REFERENCES scoring.webhooks,
    task_id uuid REFERENCES scoring.tasks,
    counter_id int NOT NULL,
    token_id bigint NOT NULL REFERENCES scoring.tokens,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'uploaded', 'processing', 'completed', 'error')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    total int NOT NULL,
    processed int NOT NULL DEFAULT 0,
    errors jsonb,
    note text
);
CREATE INDEX batches_of_webhook ON scoring.batches (webhook_id, created_at);
CREATE INDEX batches_of_task ON scoring.batches (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX batches_by_time ON scoring.batches (created_at);
CREATE TABLE scoring.uploads (
    id uuid PRIMARY KEY,
    counter_id int NOT NULL,
    token_id bigint NOT NULL REFERENCES scoring.tokens,
    target text NOT NULL,
    id_type text NOT NULL CHECK (id_type IN ('ClientId', 'UserId', 'Yclid', 'PurchaseId')),
    state text NOT NULL CHECK (state IN ('ready', 'sending', 'sent', 'done', 'failed')),
    rows int NOT NULL,
    splits int NOT NULL DEFAULT 0,
    version int NOT NULL DEFAULT 0,
    attempts int NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    sending_at timestamptz,
    sent_at timestamptz,
    polled_at timestamptz,
    metrika_id bigint,
    metrika_status text,
    line_quantity int,
    error text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX uploads_open ON scoring.uploads (next_at) WHERE state IN ('ready', 'sending', 'sent');
CREATE TABLE scoring.conversions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES scoring.batches,
    client_id text,
    user_id text,
    yclid text,
    purchase_id text,
    target text NOT NULL,
    date_time timestamptz NOT NULL,
    price numeric,
    currency text,
    upload_id uuid REFERENCES scoring.uploads,
    CHECK (coalesce(client_id, user_id, yclid, purchase_id) IS NOT NULL)
);
CREATE INDEX conversions_of_batch ON scoring.conversions (batch_id);
CREATE INDEX conversions_of_upload ON scoring.conversions (upload_id) WHERE upload_id IS NOT NULL;
CREATE INDEX conversions_unassigned ON scoring.conversions (id) WHERE upload_id IS NULL;
CREATE TABLE scoring.sent_visits (
    counter_id int,
    target text,
    visit_id text,
    PRIMARY KEY (counter_id, target, visit_id)
);
CREATE TABLE scoring.idempotency_keys (
    scope text,
    key text,
    body_hash bytea NOT NULL,
    resource_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_by_time ON scoring.idempotency_keys (created_at);
CREATE TABLE scoring.audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
)
"""
COMMENTS = """
COMMENT ON COLUMN scoring.audit_log.actor IS 'admin, page or anonymous, with the address';
COMMENT ON TABLE scoring.sent_visits IS 'Scored visits whose conversion was accepted: none is sent again';
COMMENT ON COLUMN scoring.tokens.fingerprint IS 'HMAC of the token: finds it again';
COMMENT ON COLUMN scoring.tokens.cipher IS 'The OAuth token, encrypted by Fernet';
COMMENT ON COLUMN scoring.tasks.params IS 'date and counter; never the token';
COMMENT ON COLUMN scoring.tasks.run_id IS 'The Dagster run that works on it';
COMMENT ON COLUMN scoring.uploads.id_type IS 'ClientId, UserId, Yclid or PurchaseId';
COMMENT ON COLUMN scoring.uploads.state IS 'ready, sending, sent, done or failed';
COMMENT ON COLUMN scoring.uploads.splits IS 'How often it was halved';
COMMENT ON COLUMN scoring.uploads.version IS 'One more if cut or retried';
COMMENT ON COLUMN scoring.uploads.sending_at IS 'The intent, written before the request';
COMMENT ON COLUMN scoring.uploads.line_quantity IS 'Rows that passed Metrika''s validation';
COMMENT ON COLUMN scoring.webhooks.secret_hash IS 'SHA-256 of the secret';
COMMENT ON COLUMN scoring.webhooks.deleted_at IS 'Its batches are still to be uploaded';
COMMENT ON COLUMN scoring.batches.source IS 'webhook, single, bulk or csv';
COMMENT ON COLUMN scoring.batches.errors IS 'Texts for the user';
COMMENT ON COLUMN scoring.batches.note IS 'What of the request was left out, and why';
COMMENT ON COLUMN scoring.results.time_zone IS 'The counter''s zone, in which the times are';
COMMENT ON COLUMN scoring.results.result_json IS 'visitId, clientId, dateTime, visitDuration'
"""


def upgrade() -> None:
    """Make the tables; the schema is there already, since it holds the version table."""
    for statement in (*TABLES.split(";\n"), *COMMENTS.split(";\n")):
        op.execute(statement)


def downgrade() -> None:
    """Drop them with all they hold."""
    for name in reversed(re.findall(r"CREATE TABLE (\S+)", TABLES)):
        op.execute(f"DROP TABLE {name}")
