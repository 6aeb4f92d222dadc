"""`svod vats`: SIP devices of MTS VATS, as runs of the job `mts_vats_change_devices`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.project import enter, fail, out

app = typer.Typer(
    no_args_is_help=True, help="SIP devices of MTS VATS: shows what it would do; --apply does it."
)
Phones = Annotated[list[str], typer.Argument(help="Phone numbers.")]
Cabinet = Annotated[str, typer.Option(help="Cabinet, if there are several.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it; needs MTS_VATS_ALLOW_WRITES=true.")]


@app.command()
def on(phones: Phones, cabinet: Cabinet = "", apply: Apply = False) -> None:
    """Switch devices on."""
    _change("on", phones, cabinet, apply)


@app.command()
def off(phones: Phones, cabinet: Cabinet = "", apply: Apply = False) -> None:
    """Switch devices off."""
    _change("off", phones, cabinet, apply)


@app.command()
def add(phones: Phones, cabinet: Cabinet = "", apply: Apply = False) -> None:
    """Install a device where there is none."""
    _change("add", phones, cabinet, apply)


@app.command()
def remove(phones: Phones, cabinet: Cabinet = "", apply: Apply = False) -> None:
    """Remove installed devices."""
    _change("remove", phones, cabinet, apply)


@app.command()
def key() -> None:
    """Print a new key for MTS_VATS_ENCRYPTION_KEY."""
    from resources.mts_vats.vault import new_key

    typer.echo(new_key())


def _change(action: str, phones: list[str], cabinet: str, apply: bool) -> None:
    from cli.services import Interrupted, local_systems, postgres, stop_signals

    folder = enter()
    try:
        with stop_signals(), postgres(folder), local_systems(0, {"mts_vats"}):
            good = _run({"action": action, "phones": phones, "cabinet": cabinet, "dry_run": not apply})
    except Interrupted:
        raise fail("Stopped. What was done before is in bi.device_changes.") from None
    if not good:
        raise fail("Not everything was changed as asked; the reasons are above.")
    if not apply:
        out.print("Nothing was sent. Add --apply to do it.")


def _run(config: dict[str, object]) -> bool:
    """One run; prints what became of each phone."""
    import dagster as dg

    from cli.load import definitions
    from cli.query import warehouse
    from etl_assets.mts_vats.devices import JOB
    from etl_assets.mts_vats.tables import DEVICE_CHANGES

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        job = definitions().resolve_job_def(JOB)
        result = job.execute_in_process(
            instance=instance,
            run_config={"ops": {"change_devices": {"config": config}}, **quiet},
            raise_on_error=False,
        )
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            failure = event.step_failure_data.user_failure_data
            out.print((failure.description if failure else None) or "The run failed.", markup=False)
    store = warehouse()
    if store.columns(DEVICE_CHANGES):
        sql = f"SELECT phone, action, outcome, detail FROM {DEVICE_CHANGES.sql_name} FINAL"
        rows = store.query(f"{sql} WHERE run_id = {{r:String}} ORDER BY phone", {"r": result.run_id})
        for phone, action, outcome, detail in rows:
            out.print(f"{phone} {action}: {outcome} {detail or ''}".rstrip(), markup=False)
    return result.success
