"""The fields that the Logs API knows, with their types; how a value of each type is written.

Types: docs of the Logs API. `<a>` in the docs is an attribution, here the names under `MODELS`.
"""

from __future__ import annotations

from typing import Any

MODELS = (
    "cross_device_last_yandex_direct_click",
    "cross_device_last_significant",
    "cross_device_first",
    "cross_device_last",
    "last_yandex_direct_click",
    "lastsign",
    "<attribution>",
    "automatic",
    "first",
    "last",
)
_SCREEN = """
    browserMajorVersion browserMinorVersion browserEngineVersion1 browserEngineVersion2
    browserEngineVersion3 browserEngineVersion4 screenWidth screenHeight physicalScreenWidth
    physicalScreenHeight windowClientWidth windowClientHeight
"""
_KEYS = " ".join(f"parsedParamsKey{n}" for n in range(1, 11))
_VISITS = {
    "number": """
        visitID clientID counterUserIDHash counterID visitDuration regionCountryID regionCityID
        pageViews clientTimeZone isNewUser bounce cookieEnabled javascriptEnabled screenColors
        screenOrientation isRobotPro
    """
    + _SCREEN,
    "day": "date",
    "moment": "dateTime dateTimeUTC",
    "numbers": """
        watchIDs eventsProductQuantity impressionsProductQuantity goalsID goalsSerialNumber goalsPrice
        purchaseRevenue purchaseTax purchaseShipping purchaseProductQuantity productsPrice
        productsQuantity
    """,
    "texts": """
        goalsOrder goalsCurrency purchaseID purchaseAffiliation purchaseCoupon purchaseCurrency
        productsID productsName productsBrand productsCategory
    """
    + _KEYS,
    "moments": "goalsDateTime purchaseDateTime productsEventTime eventsProductEventTime",
    "text": """
        startURL endURL referer from ipAddress regionCountry regionCity networkType browserLanguage
        browserCountry deviceCategory mobilePhone mobilePhoneModel operatingSystemRoot operatingSystem
        browser browserEngine screenFormat screenOrientationName
    """,
}
_ATTRIBUTED = {
    "number": "hasGCLID",
    "text": """
        TrafficSource AdvEngine ReferalSource SearchEngineRoot SearchEngine SocialNetwork
        SocialNetworkProfile DirectClickOrder DirectBannerGroup DirectClickBanner DirectClickOrderName
        ClickBannerGroupName DirectClickBannerName DirectPhraseOrCond DirectPlatformType DirectPlatform
        DirectConditionType CurrencyID UTMCampaign UTMContent UTMMedium UTMSource UTMTerm openstatAd
        openstatCampaign openstatService openstatSource GCLID RecommendationSystem Messenger
    """,
}
_HITS = {
    "number": """
        watchID clientID counterUserIDHash visitID pageViewID counterID regionCityID regionCountryID
        clientTimeZone isPageView isTurboPage isTurboApp iFrame link download notBounce artificial
        hasGCLID cookieEnabled javascriptEnabled screenColors screenOrientation
    """
    + _SCREEN,
    "day": "date",
    "moment": "dateTime",
    "numbers": "goalsID",
    "texts": _KEYS,
    "text": """
        title pageCharset URL referer UTMCampaign UTMContent UTMMedium UTMSource UTMTerm openstatAd
        openstatCampaign openstatService openstatSource from GCLID lastTrafficSource
        lastSearchEngineRoot lastSearchEngine lastAdvEngine lastSocialNetwork lastSocialNetworkProfile
        recommendationSystem messenger browser browserCountry browserEngine browserLanguage
        deviceCategory mobilePhone mobilePhoneModel operatingSystem operatingSystemRoot screenFormat
        screenOrientationName ipAddress regionCity regionCountry ecommerce params httpError networkType
        shareService shareURL shareTitle
    """,
}


def _types(groups: dict[str, str]) -> dict[str, str]:
    return {name: kind for kind, names in groups.items() for name in names.split()}


PREFIX = {"visits": "ym:s:", "hits": "ym:pv:"}
TYPES = {"visits": _types(_VISITS), "hits": _types(_HITS)}
ATTRIBUTED = _types(_ATTRIBUTED)


def field_of(source: str, name: str) -> tuple[str, str] | None:
    """(key of a row, type) of a requested field; None if there is no such field."""
    prefix = PREFIX[source]
    if not name.startswith(prefix):
        return None
    bare = name.removeprefix(prefix)
    if bare in TYPES[source]:
        return bare, TYPES[source][bare]
    for model in MODELS if source == "visits" else ():
        if bare.startswith(model) and (kind := ATTRIBUTED.get(bare.removeprefix(model))):
            return bare.removeprefix(model), kind
    return None


_ESCAPES = str.maketrans(
    {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\", "'": r"\'", "\0": r"\0", "\b": r"\b", "\f": r"\f"}
)
_IN_ARRAY = str.maketrans({"\\": r"\\", "'": r"\'"})
_EMPTY = {"number": "0", "numbers": "[]", "texts": "[]", "moments": "[]", "text": "", "day": "", "moment": ""}


def written(kind: str, value: Any) -> str:
    """A value as it stands in a tab-separated part; None is how a row has nothing."""
    if value is None:
        return _EMPTY[kind]
    if kind == "numbers":
        return f"[{','.join(map(str, value))}]"
    if kind in ("texts", "moments"):
        quoted = ",".join(f"'{str(v).translate(_IN_ARRAY)}'" for v in value)
        return f"[{quoted}]".translate(_ESCAPES)
    return str(value).translate(_ESCAPES) if kind == "text" else str(value)
