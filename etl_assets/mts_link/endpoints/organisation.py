"""Organisation and settings."""

from etl_assets.mts_link.endpoints.model import BY_100, Endpoint

ORGANISATION = (
    Endpoint(
        "brandings_list",
        "organisation",
        "Brandings. The answer is documented nowhere: all of it stands in `raw`.",
        "/brandings",
        "id name",
        privacy="organisation",
        source="GET /brandings",
    ),
    Endpoint(
        "organization_groups",
        "organisation",
        "Groups of employees. The answer is documented nowhere: all of it stands in `raw`.",
        "/organization-groups",
        "id name usersCount createdAt",
        paging=BY_100,
        privacy="organisation",
        source="GET /organization-groups",
    ),
    Endpoint(
        "partner_applications",
        "organisation",
        "Applications of partners. The answer is documented nowhere: all of it stands in `raw`.",
        "/partner-applications",
        "id clientId name isEnabled approval",
        query={"approval": "all"},
        options=("approval",),
        privacy="organisation",
        source="GET /partner-applications",
    ),
    Endpoint(
        "timezones_list",
        "organisation",
        "Time zones that `timezoneId` of sessions means.",
        "/timezones",
        "id name description offset",
        privacy="organisation",
        source="GET /timezones",
    ),
)
