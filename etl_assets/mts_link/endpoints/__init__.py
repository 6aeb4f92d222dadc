"""All methods of MTS Link that are read: the 47 old extractors under their names, and more."""

from etl_assets.mts_link.endpoints.addressbook import ADDRESSBOOK
from etl_assets.mts_link.endpoints.chats import CHATS
from etl_assets.mts_link.endpoints.events import EVENTS
from etl_assets.mts_link.endpoints.files import FILES
from etl_assets.mts_link.endpoints.model import DATED, PRIVACY, Endpoint, Window
from etl_assets.mts_link.endpoints.organisation import ORGANISATION
from etl_assets.mts_link.endpoints.tests import TESTS

ENDPOINTS = (*ADDRESSBOOK, *CHATS, *EVENTS, *FILES, *ORGANISATION, *TESTS)
BY_NAME = {e.name: e for e in ENDPOINTS}
NEW = frozenset(
    {
        "contact_user_info",
        "channel_users",
        "chats_teams",
        "organization_info",
        "transcript_summary",
        "events_stats",
        "attention_interactions",
        "raising_hands",
        "event_likes",
        "emoji_reactions",
        "converted_records_org",
    }
)

__all__ = ["BY_NAME", "DATED", "ENDPOINTS", "NEW", "PRIVACY", "Endpoint", "Window"]
