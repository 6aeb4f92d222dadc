"""Bitrix24 by the clock: entities that share a cron share a run."""

import re
from collections import defaultdict
from typing import Any, TypeAlias

import dagster as dg

from etl_assets.bitrix24.assets import DATABASE, Bitrix24Settings, cron_tag
from etl_assets.bitrix24.checks import build_checks
from etl_assets.bitrix24.deleted import KEY as DELETED_OBJECTS
from etl_assets.bitrix24.entities import ENTITIES, Entity, smart_process
from etl_assets.bitrix24.health import KEY as HEALTH
from etl_assets.loading import FEED_TAG
from etl_assets.partitions import daily, today

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
Job: TypeAlias = Any  # Dagster exports no name for what define_asset_job gives


def build_schedules(settings: Bitrix24Settings) -> tuple[list[Job], list[dg.ScheduleDefinition]]:
    """One job and one schedule a cron.

    Their assets are chosen by tag, so that a new smart process joins by itself.
    """
    by_cron: dict[str, list[Entity]] = defaultdict(list)
    for entity in (*ENTITIES, smart_process(0, "any")):
        if cron := settings.cron(entity):
            by_cron[cron].append(entity)
    feeds = (_scheduled(cron, entities, settings) for cron, entities in sorted(by_cron.items()))
    gone = "Marks rows that the portal no longer has, loads rows that are missing here."
    how = "Measures how each entity is."
    compared = _of_asset("bitrix24_reconciliation", DELETED_OBJECTS, COMPARISON_CRON, gone, settings)
    built = [
        _nightly_checks(settings),
        compared,
        _of_asset("bitrix24_health", HEALTH, HEALTH_CRON, how, settings),
        *feeds,
    ]
    built.append(_weekly_children(settings))
    sweep = _weekly_sweep(compared[0], settings)
    return [job for job, _ in built], [*(schedule for _, schedule in built), sweep]


def _status(settings: Bitrix24Settings) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if settings.running else dg.DefaultScheduleStatus.STOPPED


CHECKS_CRON = "0 3 * * *"


def _nightly_checks(settings: Bitrix24Settings) -> tuple[Job, dg.ScheduleDefinition]:
    """Counts at the source against counts here, unique keys, the webhook's rights."""
    job = dg.define_asset_job(
        "bitrix24_checks",
        selection=dg.AssetSelection.checks(*build_checks()),
        executor_def=dg.in_process_executor,
        description="Compares the warehouse with what the portal counts; tells what the webhook may read.",
    )
    schedule = dg.ScheduleDefinition(
        name="bitrix24_checks",
        job=job,
        cron_schedule=CHECKS_CRON,
        execution_timezone=settings.zone,
        default_status=_status(settings),
        description=f"Counts and rights, once a night: `{CHECKS_CRON}`, {settings.zone}.",
    )
    return job, schedule


COMPARISON_CRON = "30 3 * * *"


SWEEP_CRON = "30 4 * * 0"


def _weekly_sweep(comparison: Job, settings: Bitrix24Settings) -> dg.ScheduleDefinition:
    """The nightly comparison by all ids instead of by counts."""
    return dg.ScheduleDefinition(
        name="bitrix24_sweep",
        job=comparison,
        cron_schedule=SWEEP_CRON,
        execution_timezone=settings.zone,
        default_status=_status(settings),
        run_config={"ops": {"__".join(DELETED_OBJECTS.path): {"config": {"sweep": True}}}},
        description="Reads all ids of the portal: finds what counts hide, and works where there are none. "
        f"`{SWEEP_CRON}`, {settings.zone}.",
    )


CHILDREN, CHILDREN_CRON = "bitrix24_children", "30 5 * * 0"
READ_BY_OWNER = ("product_rows", "links", "owned", "comments", "open_line_messages")


def _weekly_children(settings: Bitrix24Settings) -> tuple[Job, dg.ScheduleDefinition]:
    """What is read by owner, of all owners: a tick asks only for those that changed."""
    names = [e.name for e in ENTITIES if e.modified and e.strategy in READ_BY_OWNER]
    job = dg.define_asset_job(
        CHILDREN,
        selection=dg.AssetSelection.assets(*([DATABASE, name] for name in names))
        - dg.AssetSelection.checks(*build_checks()),
        executor_def=dg.in_process_executor,
        description="Reads everything that is read by owner (product rows, links, comments, what belongs to "
        "tasks) for all owners: nothing tells when an owner was deleted and restored between two looks.",
    )
    partitions = daily(settings.start_date, settings.zone)

    @dg.schedule(
        name=CHILDREN,
        job=job,
        cron_schedule=CHILDREN_CRON,
        execution_timezone=settings.zone,
        default_status=_status(settings),
        description=f"Product rows, links, comments of all owners: `{CHILDREN_CRON}`, {settings.zone}.",
    )
    def _schedule() -> dg.RunRequest:
        return dg.RunRequest(tags={RANGE_START: settings.start_date, RANGE_END: today(partitions)})

    return job, _schedule


HEALTH_CRON = "50 * * * *"


def _of_asset(
    name: str, key: dg.AssetKey, cron: str, about: str, settings: Bitrix24Settings
) -> tuple[Job, dg.ScheduleDefinition]:
    """A job of one asset and its schedule."""
    job = dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(key),
        executor_def=dg.in_process_executor,
        description=about,
    )
    schedule = dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=settings.zone,
        default_status=_status(settings),
        description=f"{about} `{cron}`, {settings.zone}.",
    )
    return job, schedule


def _scheduled(
    cron: str, entities: list[Entity], settings: Bitrix24Settings
) -> tuple[Job, dg.ScheduleDefinition]:
    partitioned = any(e.modified for e in entities)
    name = _name(cron, entities)
    job = dg.define_asset_job(
        name,
        # The checks that count rows at the source are for the night, not for every tick.
        selection=(dg.AssetSelection.tag("svod/cron", cron_tag(cron)) & dg.AssetSelection.groups(DATABASE))
        - dg.AssetSelection.checks(*build_checks()),
        executor_def=dg.in_process_executor,
        description=f"Bitrix24 tables that are refreshed by `{cron}`: what has changed since the last load.",
    )
    partitions = daily(settings.start_date, settings.zone)

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=settings.zone,
        default_status=_status(settings),
        description=f"{', '.join(e.name.removesuffix('_0') for e in entities)}: `{cron}`, {settings.zone}.",
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = context.instance.get_runs(
            dg.RunsFilter(
                job_name=name,
                statuses=[
                    dg.DagsterRunStatus.STARTED,
                    dg.DagsterRunStatus.STARTING,
                    dg.DagsterRunStatus.QUEUED,
                ],
            )
        )
        if busy:
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of the last tick is not finished yet")
        return dg.RunRequest(
            partition_key=today(partitions) if partitioned else None, tags={FEED_TAG: "true"}
        )

    return job, _schedule


def _name(cron: str, entities: list[Entity]) -> str:
    usual = {
        "*/5 * * * *": "bitrix24_change_feed",
        "*/15 * * * *": "bitrix24_work",
        "0 * * * *": "bitrix24_dictionaries",
        "30 2 * * *": "bitrix24_structure",
    }
    return usual.get(cron) or f"bitrix24_{re.sub(r'[^A-Za-z0-9]', '_', cron_tag(cron))}"
