"""The entity table of Bitrix24: what is loaded, from which method, how often. One row an entity."""

from __future__ import annotations

from etl_assets.bitrix24.catalog_entities import CATALOG
from etl_assets.bitrix24.entity import (
    BY_CODE,
    BY_NUMBER,
    DICTIONARIES,
    FEED,
    OWNER_CODES,
    STRUCTURE,
    WORK,
    Entity,
    Owner,
)
from etl_assets.bitrix24.entity import column as _c
from etl_assets.bitrix24.entity import key_column as _key
from etl_assets.bitrix24.work_entities import WORK_ENTITIES
from resources.clickhouse.values import CALENDAR_DATE, FLOAT64, INSTANT, INTEGER, JSON, TEXT, YES_NO

__all__ = [
    "DICTIONARIES",
    "ENTITIES",
    "FEED",
    "OBJECTS",
    "OWNER_CODES",
    "STRUCTURE",
    "WORK",
    "Entity",
    "smart_process",
]


def classic(
    name: str, entity_type_id: int, about: str, *, select: tuple[str, ...] = (), contacts: bool = False
) -> Entity:
    """One of the five old CRM objects: table columns are named as in `crm.<object>.fields`."""
    return Entity(
        name=f"crm_{name}",
        about=about,
        method=f"crm.{name}.list",
        fields_method=f"crm.{name}.fields",
        entity_type_id=entity_type_id,
        modified="DATE_MODIFY",
        select=select,
        contacts=contacts,
    )


def universal(
    name: str, entity_type_id: int, about: str, *, title: str = "", archived: bool = False
) -> Entity:
    """An object of `crm.item.*`: columns are named by `upperName`."""
    return Entity(
        name=name,
        about=about,
        method="crm.item.list",
        fields_method="crm.item.fields",
        entity_type_id=entity_type_id,
        universal=True,
        modified="UPDATED_TIME",
        title=title,
        archived=archived,
    )


def smart_process(entity_type_id: int, title: str, *, archived: bool = False) -> Entity:
    """A smart process; its table is named by the number, since titles change."""
    state = (
        " The type no longer exists on the portal: the table is kept and nothing loads it."
        if archived
        else ""
    )
    return universal(
        f"crm_dynamic_items_{entity_type_id}",
        entity_type_id,
        f"Items of the smart process «{title}».{state}",
        title=title,
        archived=archived,
    )


PHONES = ("PHONE", "EMAIL", "WEB", "IM")

OBJECTS = (
    classic("deal", 2, "Deals: one row a deal, with all its contacts in CONTACT_IDS.", contacts=True),
    classic("lead", 1, "Leads.", select=PHONES),
    classic("contact", 3, "Contacts: people.", select=PHONES),
    classic("company", 4, "Companies; own companies have IS_MY_COMPANY = Y.", select=PHONES),
    classic("quote", 7, "Quotes (estimates).", contacts=True),
    universal("crm_smart_invoice", 31, "Smart invoices."),
    Entity(
        name="crm_activity",
        about="Activities: calls, meetings, letters, tasks and chats tied to CRM records.",
        method="crm.activity.list",
        fields_method="crm.activity.fields",
        modified="LAST_UPDATED",
        select=("COMMUNICATIONS", "FILES", "BINDINGS"),
    ),
)

CHILDREN = (
    Entity(
        name="crm_stage_history",
        about="Stage history: one row each time a lead, deal, invoice or smart item entered a stage. "
        "TYPE_ID: 1 created, 2 intermediate, 3 final, 5 moved to another funnel.",
        method="crm.stagehistory.list",
        strategy="stage_history",
        key=("ENTITY_TYPE_ID", "ID"),
        modified="CREATED_TIME",
        items="items",
        goes_with=Owner("OWNER_ID", type_column="ENTITY_TYPE_ID", types=BY_NUMBER),
        columns=(
            _key("ENTITY_TYPE_ID", "Type of the owner", source="entityTypeId", context=True),
            _key("ID", "Record of the history"),
            _c("TYPE_ID", INTEGER, "1 created, 2 intermediate, 3 final, 5 moved to another funnel"),
            _c("OWNER_ID", TEXT, "The lead, deal, invoice or item"),
            _c("CREATED_TIME", INSTANT, "When the stage was entered"),
            _c("CATEGORY_ID", TEXT, "Funnel"),
            _c("STAGE_ID", TEXT, "Stage"),
            _c("STAGE_SEMANTIC_ID", TEXT, "P in progress, S success, F failure"),
            _c("STATUS_ID", TEXT, "Stage of a lead"),
            _c("STATUS_SEMANTIC_ID", TEXT, "Meaning of a lead's stage"),
        ),
    ),
    Entity(
        name="crm_productrow",
        about="Product rows of deals, leads, quotes, invoices and smart items. They are read again for every "
        "owner that changed; rows that an owner no longer has are taken out.",
        method="crm.item.productrow.list",
        fields_method="crm.item.productrow.fields",
        strategy="product_rows",
        key=("id",),
        modified="owner_modified_at",
        items="productRows",
        owner="ownerId",
        goes_with=Owner("ownerId", type_column="ownerType", types=BY_CODE),
        tombstones=True,
        parents=("crm_deal", "crm_lead", "crm_quote", "crm_smart_invoice"),
    ),
    Entity(
        name="crm_deal_contact",
        about="Contacts of a deal with their order, role and which one is primary.",
        method="crm.deal.contact.items.get",
        strategy="links",
        key=("DEAL_ID", "CONTACT_ID"),
        modified="owner_modified_at",
        owner="DEAL_ID",
        goes_with=Owner("DEAL_ID", "crm_deal"),
        tombstones=True,
        parents=("crm_deal",),
        columns=(
            _key("DEAL_ID", "Deal"),
            _key("CONTACT_ID", "Contact"),
            _c("SORT", INTEGER, "Order"),
            _c("ROLE_ID", TEXT, "Role"),
            _c("IS_PRIMARY", YES_NO, "Y: the main contact"),
        ),
    ),
    Entity(
        name="crm_contact_company",
        about="Companies of a contact with their order, role and which one is primary.",
        method="crm.contact.company.items.get",
        strategy="links",
        key=("CONTACT_ID", "COMPANY_ID"),
        modified="owner_modified_at",
        owner="CONTACT_ID",
        goes_with=Owner("CONTACT_ID", "crm_contact"),
        tombstones=True,
        parents=("crm_contact",),
        columns=(
            _key("CONTACT_ID", "Contact"),
            _key("COMPANY_ID", "Company"),
            _c("SORT", INTEGER, "Order"),
            _c("ROLE_ID", TEXT, "Role"),
            _c("IS_PRIMARY", YES_NO, "Y: the main company"),
        ),
    ),
)


def _contacts(owner: str, about: str) -> Entity:
    return Entity(
        name=f"crm_{owner}_contact",
        about=about,
        method=f"crm.{owner}.contact.items.get",
        strategy="links",
        key=(f"{owner.upper()}_ID", "CONTACT_ID"),
        cron=WORK,
        modified="owner_modified_at",
        owner=f"{owner.upper()}_ID",
        goes_with=Owner(f"{owner.upper()}_ID", f"crm_{owner}"),
        tombstones=True,
        parents=(f"crm_{owner}",),
        columns=(
            _key(f"{owner.upper()}_ID", "Owner"),
            _key("CONTACT_ID", "Contact"),
            _c("SORT", INTEGER, "Order"),
            _c("ROLE_ID", TEXT, "Role"),
            _c("IS_PRIMARY", YES_NO, "Y: the main contact"),
        ),
    )


MORE_CHILDREN = (
    _contacts("lead", "Contacts of a lead with their order and which one is primary."),
    _contacts("quote", "Contacts of a quote with their order and which one is primary."),
    _contacts("company", "Contacts of a company with their order and which one is primary."),
)

SNAPSHOTS = (
    Entity(
        name="crm_status",
        about="Dictionaries: stages of all funnels, sources, types. Business key (ENTITY_ID, STATUS_ID).",
        method="crm.status.list",
        strategy="list",
        cron=DICTIONARIES,
        paging="offset",
        params={"order": {"SORT": "ASC"}},
        columns=(
            _key("ID"),
            _c("ENTITY_ID", TEXT, "Dictionary"),
            _c("STATUS_ID", TEXT, "Code of the value"),
            _c("NAME", TEXT, "Label"),
            _c("NAME_INIT", TEXT, "Label at installation"),
            _c("SORT", INTEGER, "Order"),
            _c("SYSTEM", YES_NO, "Y: cannot be removed"),
            _c("CATEGORY_ID", TEXT, "Funnel"),
            _c("COLOR", TEXT, "Colour"),
            _c("SEMANTICS", TEXT, "P or empty in progress, S success, F failure"),
            _c("EXTRA", JSON, "Further attributes"),
        ),
    ),
    Entity(
        name="crm_status_type",
        about="Which dictionaries there are, also those of smart processes.",
        method="crm.status.entity.types",
        strategy="list",
        cron=DICTIONARIES,
        paging="single",
        columns=(
            _key("ID", "Dictionary"),
            _c("NAME", TEXT, "Label"),
            _c("ENTITY_TYPE_ID", TEXT, "Type that uses it"),
            _c("CATEGORY_ID", TEXT, "Funnel"),
            _c("SEMANTIC_INFO", JSON, "Which stages start and end it"),
            _c("PREFIX", TEXT, "Prefix of its codes"),
            _c("FIELD_ATTRIBUTE_SCOPE", TEXT, "Scope"),
            _c("IS_ENABLED", YES_NO, "Y: in use"),
            _c("PARENT_ID", TEXT, "Parent dictionary"),
        ),
    ),
    Entity(
        name="crm_category",
        about="Funnels of every type that has them; the default funnel of deals has id 0.",
        method="crm.category.list",
        strategy="per_type",
        key=("entityTypeId", "id"),
        cron=DICTIONARIES,
        paging="single",
        items="categories",
        columns=(
            _key("entityTypeId", "Type"),
            _key("id", "Funnel"),
            _c("name", TEXT, "Label"),
            _c("sort", INTEGER, "Order"),
            _c("isDefault", YES_NO, "Y: the default funnel"),
            _c("originId", TEXT, "Id in the external source"),
            _c("originatorId", TEXT, "External source"),
        ),
    ),
    Entity(
        name="crm_currency",
        about="Currencies and their rates.",
        method="crm.currency.list",
        strategy="list",
        key=("CURRENCY",),
        cron=DICTIONARIES,
        paging="single",
        columns=(
            _key("CURRENCY", "Code"),
            _c("AMOUNT_CNT", INTEGER, "Units that AMOUNT is for"),
            _c("AMOUNT", FLOAT64, "Rate"),
            _c("SORT", INTEGER, "Order"),
            _c("BASE", YES_NO, "Y: the base currency"),
            _c("FULL_NAME", TEXT, "Label"),
            _c("LID", TEXT, "Site"),
            _c("FORMAT_STRING", TEXT, "Pattern"),
            _c("DEC_POINT", TEXT, "Decimal mark"),
            _c("THOUSANDS_SEP", TEXT, "Thousands separator"),
            _c("DECIMALS", INTEGER, "Decimals"),
            _c("DATE_UPDATE", INSTANT, "Changed"),
            _c("LANG", JSON, "Labels by language"),
        ),
    ),
    Entity(
        name="crm_owner_type",
        about="All CRM types, smart processes among them, with their short codes.",
        method="crm.enum.ownertype",
        strategy="list",
        cron=STRUCTURE,
        paging="single",
        columns=(
            _key("ID", "entityTypeId"),
            _c("NAME", TEXT, "Label"),
            _c("SYMBOL_CODE", TEXT, "Code"),
            _c("SYMBOL_CODE_SHORT", TEXT, "Short code, the prefix in bindings"),
        ),
    ),
    Entity(
        name="crm_userfield",
        about="User fields of deals, leads, contacts, companies and quotes.",
        method="crm.<object>.userfield.list",
        strategy="user_fields",
        key=("ENTITY_ID", "FIELD_NAME"),
        cron=STRUCTURE,
        columns=(
            _key("ENTITY_ID", "Object"),
            _key("FIELD_NAME", "Column of the object's table"),
            _c("ID"),
            _c("USER_TYPE_ID", TEXT, "Type"),
            _c("XML_ID", TEXT, "External code"),
            _c("SORT", INTEGER, "Order"),
            _c("MULTIPLE", YES_NO, "Y: several values"),
            _c("MANDATORY", YES_NO, "Y: must be filled"),
            _c("LIST_COLUMN_LABEL", TEXT, "Label in lists"),
            _c("EDIT_FORM_LABEL", TEXT, "Label in forms"),
            _c("SETTINGS", JSON, "Settings of the type"),
        ),
    ),
    Entity(
        name="crm_userfield_enum",
        about="Labels of list fields: option id to text, for every object and smart process.",
        method="crm.<object>.fields, crm.item.fields",
        strategy="enum_labels",
        key=("ENTITY", "FIELD_NAME", "ID"),
        cron=STRUCTURE,
        columns=(
            _key("ENTITY", "Table of the field"),
            _key("FIELD_NAME", "Column"),
            _key("ID", "Option, as it stands in the column"),
            _c("VALUE", TEXT, "Label"),
        ),
    ),
    Entity(
        name="user",
        about="Users of the portal; dismissed ones have ACTIVE = N. The portal gives no bots and no guests.",
        method="user.get",
        fields_method="user.fields",
        strategy="list",
        cron=DICTIONARIES,
        paging="sequential",
        sort_style="sort_order",
        params={"ADMIN_MODE": True},
        columns=(
            _key("ID"),
            _c("XML_ID", TEXT, "External code"),
            _c("ACTIVE", YES_NO, "N: dismissed"),
            _c("NAME", TEXT, "First name"),
            _c("LAST_NAME", TEXT, "Last name"),
            _c("SECOND_NAME", TEXT, "Patronymic"),
            _c("TITLE", TEXT, "Salutation"),
            _c("EMAIL", TEXT, "E-mail"),
            _c("LAST_LOGIN", INSTANT, "Last login"),
            _c("DATE_REGISTER", INSTANT, "Registered"),
            _c("TIME_ZONE", TEXT, "Time zone"),
            _c("IS_ONLINE", YES_NO, "Y: was online at the read"),
            _c("TIMESTAMP_X", INSTANT, "Changed"),
            _c("LAST_ACTIVITY_DATE", INSTANT, "Last activity"),
            _c("PERSONAL_GENDER", TEXT, "Gender"),
            _c("PERSONAL_WWW", TEXT, "Personal page"),
            _c("PERSONAL_BIRTHDAY", CALENDAR_DATE, "Birthday"),
            _c("PERSONAL_MOBILE", TEXT, "Mobile phone"),
            _c("PERSONAL_CITY", TEXT, "City"),
            _c("WORK_PHONE", TEXT, "Work phone"),
            _c("WORK_POSITION", TEXT, "Position"),
            _c("UF_EMPLOYMENT_DATE", CALENDAR_DATE, "Employed since"),
            _c("UF_DEPARTMENT", INTEGER, "Departments", multiple=True),
            _c("UF_INTERESTS", TEXT, "Interests"),
            _c("UF_PHONE_INNER", TEXT, "Extension"),
            _c("USER_TYPE", TEXT, "employee, extranet, email"),
        ),
    ),
    Entity(
        name="department",
        about="Departments of the company structure.",
        method="department.get",
        strategy="list",
        cron=DICTIONARIES,
        paging="offset",
        params={"sort": "ID", "order": "ASC", "START": 0},
        columns=(
            _key("ID"),
            _c("NAME", TEXT, "Label"),
            _c("SORT", INTEGER, "Order"),
            _c("PARENT", TEXT, "Parent department"),
            _c("UF_HEAD", TEXT, "Head"),
        ),
    ),
)

ENTITIES = (*OBJECTS, *CHILDREN, *MORE_CHILDREN, *SNAPSHOTS, *CATALOG, *WORK_ENTITIES)
