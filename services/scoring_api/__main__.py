"""`python -m services.scoring_api`: serve, migrate, make and rotate keys."""

from __future__ import annotations

import gc
import ipaddress
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


def _fail(text: str) -> typer.Exit:
    typer.secho(text, err=True, fg="red")
    return typer.Exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(envvar="SCORING_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="SCORING_PORT", help="Port to listen on.")] = 8000,
    without_admin_token: Annotated[
        bool, typer.Option(help="Let everybody who can reach the address manage webhooks.")
    ] = False,
) -> None:
    """Run the service until it is stopped; brings the database up to date first."""
    import uvicorn

    from services.scoring_api.app import create_app
    from services.scoring_api.service import Service
    from services.scoring_api.settings import LedgerError, PostgresError, Settings

    try:
        settings = Settings.from_environ()
    except (LedgerError, PostgresError) as error:
        raise _fail(str(error)) from None
    if not (settings.admin_token or without_admin_token or _loopback(host)):
        raise _fail(
            f"{host} can be reached by others, so the management of webhooks needs a password: set "
            "SCORING_ADMIN_TOKEN, or start with --without-admin-token."
        )
    service = create_app(Service(settings))
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked through while requests wait
    uvicorn.run(
        service, host=host, port=port, access_log=False, server_header=False, timeout_graceful_shutdown=10
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@app.command()
def migrate() -> None:
    """Bring the tables of the schema `scoring` up to date."""
    import sqlalchemy.exc

    from resources.postgres import connect
    from services.scoring_api.migrate import migrate as run
    from services.scoring_api.settings import OPERATIONS_SETTING, PostgresError, database_url

    try:
        before, now = run(connect(database_url(setting=OPERATIONS_SETTING)))
    except PostgresError as error:
        raise _fail(str(error)) from None
    except sqlalchemy.exc.OperationalError as error:
        raise _fail(f"PostgreSQL does not answer: {str(error.orig).strip().splitlines()[0]}") from None
    typer.echo(f"scoring: {before or 'nothing'} -> {now}" if before != now else f"scoring: {now}, up to date")


@app.command()
def key() -> None:
    """Print a fresh key for SCORING_ENCRYPTION_KEY."""
    from resources.scoring_service.cipher import new_key

    typer.echo(new_key())


@app.command()
def rotate() -> None:
    """Encrypt the stored tokens with the first key of SCORING_ENCRYPTION_KEY; then the others may go."""
    import sqlalchemy.exc

    from resources.scoring_service.ledger import Ledger
    from services.scoring_api.settings import LedgerError, PostgresError, Settings

    try:
        settings = Settings.from_environ()
        ledger = Ledger(settings.database, settings.cipher)
        typer.echo(f"{ledger.rotate_tokens()} tokens are encrypted with the first key")
    except (LedgerError, PostgresError) as error:
        raise _fail(str(error)) from None
    except sqlalchemy.exc.DBAPIError as error:
        raise _fail(f"PostgreSQL: {str(error.orig).strip().splitlines()[0]}") from None


if __name__ == "__main__":
    app()
