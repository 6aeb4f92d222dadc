"""Files and records."""

from etl_assets.mts_link.endpoints.model import BY_500, Endpoint, Window
from resources.mts_link import Paging

FILE = (
    "id isDeleted createAt name type typeFile format size mimeType user.id parent.id path url downloadUrl "
    "thumbnailUrl thumbnails uri isHidden isSystem state progress isConvert rotate slides"
)
CONVERTED = Paging("offset", 500, listed=False)  # how many it gives at most is not documented
RECORD = f"{FILE} convertedAt isViewable cuts eventSession.id eventSession.name"
ATTACHMENT = (
    "id isDeleted createAt file.id file.name file.type file.typeFile file.format file.size file.mimeType "
    "file.url file.downloadUrl"
)

FILES = (
    Endpoint(
        "files_list",
        "files",
        "Files and folders, all levels: each folder is opened in turn.",
        "/fileSystem/files",
        FILE,
        options=("user", "parent", "format", "isShared"),
        privacy="files",
        strategy="folders",
        source="GET /fileSystem/files, help article 3151548",
    ),
    Endpoint(
        "file_details",
        "files",
        "One file with all that is known of it.",
        "/fileSystem/file/{fileID}",
        RECORD,
        options=("name",),
        parent="files",
        privacy="files",
        strategy="fan_out",
        source="GET /fileSystem/file/{id}, help article 3184544",
    ),
    Endpoint(
        "event_session_files",
        "files",
        "Files attached to a session; `id` is the attachment, `file_id` the file.",
        "/eventsessions/{eventsessionsID}/files",
        ATTACHMENT,
        key=("event_session_id", "id"),
        options=("fileId",),
        parent="sessions",
        privacy="files",
        strategy="fan_out",
        hourly=True,
        source="GET /eventsessions/{id}/files, help article 19641",
    ),
    Endpoint(
        "event_series_files",
        "files",
        "Files attached to an event; `id` is the attachment, `file_id` the file.",
        "/events/{eventsID}/files",
        ATTACHMENT,
        key=("event_id", "id"),
        parent="events",
        privacy="files",
        strategy="fan_out",
        hourly=True,
        source="GET /events/{id}/files",
    ),
    Endpoint(
        "converted_records_list",
        "files",
        "Records converted to MP4, as files.",
        "/fileSystem/files/converted-record",
        RECORD,
        paging=CONVERTED,
        options=("from", "to", "period", "user", "parent", "isShared"),
        privacy="files",
        window=Window("createAt", lookback_days=7),
        strategy="window",
        hourly=True,
        source="GET /fileSystem/files/converted-record, help article 19232",
    ),
    Endpoint(
        "download_converted_record",
        "files",
        "What is known of one converted record; the bytes are fetched by mts_link/record_files only.",
        "/fileSystem/file/{conversionId}",
        RECORD,
        parent="converted_files",
        privacy="files",
        strategy="fan_out",
        hourly=True,
        source="GET /fileSystem/file/{id}, help article 19364",
    ),
    Endpoint(
        "converted_records_org",
        "files",
        "Conversions of records to MP4 and how far they are, of the whole organisation in one call.",
        "/converted-records",
        "id createAt convertedAt state progress user.id recordFile.id eventSession.id eventSession.name",
        paging=BY_500,
        query={"isUncompleted": "true"},
        options=("from", "to", "isUncompleted"),
        privacy="files",
        window=Window("createAt", form="day", lookback_days=7),
        strategy="window",
        hourly=True,
        optional=True,
        source="GET /converted-records, help article 21116",
    ),
)
