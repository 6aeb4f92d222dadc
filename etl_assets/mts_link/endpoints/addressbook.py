"""Address book: contacts, staff, the owner of an OAuth token."""

from etl_assets.mts_link.endpoints.model import BY_500, Endpoint

CONTACT = "id userId name secondName company position phoneMain email tags"

ADDRESSBOOK = (
    Endpoint(
        "contacts_search",
        "addressbook",
        "Contacts of the address book: added by hand, through the API, and everyone who ever registered.",
        "/contacts/search",
        CONTACT,
        options=(
            "query",
            "contactIds[]",
            "tags[]",
            "userIds[]",
            "contactsData[name]",
            "contactsData[secondName]",
            "contactsData[company]",
            "contactsData[email]",
            "contactsData[phoneMain]",
            "contactsData[position]",
        ),
        privacy="contacts",
        absent=frozenset({404}),
        source="GET /contacts/search",
    ),
    Endpoint(
        "contact_details",
        "addressbook",
        "One contact with all that is known of it.",
        "/contacts/{contactsID}",
        CONTACT,
        parent="contacts",
        privacy="contacts",
        strategy="fan_out",
        source="GET /contacts/{id}, help article 3151456",
    ),
    Endpoint(
        "organization_members",
        "addressbook",
        "Employees of the organisation.",
        "/organization/members",
        "id membershipId role name secondName patrName nickname email phone position organization sex "
        "photo|avatar",
        paging=BY_500,
        options=("id", "role", "email", "position"),
        privacy="staff",
        source="GET /organization/members, help article 3151499",
    ),
    Endpoint(
        "user_profile",
        "addressbook",
        "The person behind an OAuth token (MTS_LINK_OAUTH_TOKEN); an API key is refused here.",
        "/profile",
        "id uuid email name secondName patrName avatarUrl avatarThumbnails",
        privacy="staff",
        source="GET /profile, help article 23772",
    ),
    Endpoint(
        "contact_user_info",
        "addressbook",
        "The user behind a contact: students of courses are found through it.",
        "/contacts/{contactID}/user",
        "id firstName lastName email",
        key=("contact_id",),
        parent="contact_users",
        privacy="contacts",
        strategy="fan_out",
        source="GET /contacts/{id}/user, help article 19585",
    ),
)
