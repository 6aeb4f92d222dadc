"""OAuth tokens of one installed application, with rotation of the refresh token."""

from typing import Any

from sandbox.bitrix24.clock import PortalClock
from sandbox.bitrix24.config import PortalConfig
from sandbox.bitrix24.data import salt_of
from sandbox.bitrix24.errors import RestError

CLIENT_ID = "local.sandbox"
CLIENT_SECRET = "sandbox-client-secret"
AUTHORIZATION_CODE = "sandbox-code"
ACCESS_LIFE = 3600
REFRESH_LIFE = 180 * 86400
MEMBER_ID = "5a4db0c5b24sandbox0000000000000f"


class TokenStore:
    """Issued tokens. A refresh token works once."""

    def __init__(self, config: PortalConfig, clock: PortalClock) -> None:
        self._config, self._clock = config, clock
        self._serial = 0
        self._access: dict[str, float] = {}
        self._refresh: dict[str, float] = {}

    def _token(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}{salt_of(self._config.seed, kind, self._serial):016x}{self._serial:04d}"

    def issue(self, base_url: str) -> dict[str, Any]:
        """A new pair, in the shape of the token endpoint's answer."""
        now = self._clock.now()
        access, refresh = self._token("access"), self._token("refresh")
        self._access[access] = now + ACCESS_LIFE
        self._refresh[refresh] = now + REFRESH_LIFE
        return {
            "access_token": access,
            "client_endpoint": f"{base_url}/rest/",
            "domain": "oauth.bitrix.info",
            "expires": int(now + ACCESS_LIFE),
            "expires_in": ACCESS_LIFE,
            "member_id": MEMBER_ID,
            "refresh_token": refresh,
            "scope": ",".join(self._config.scopes),
            "server_endpoint": f"{base_url}/rest/",
            "status": "L",
            "user_id": self._config.user_id,
        }

    def expire_access(self) -> None:
        """All access tokens expire now; refresh tokens stay."""
        self._access = dict.fromkeys(self._access, 0.0)

    def revoke(self) -> None:
        """Forget every refresh token: the operator has to authorise again."""
        self._refresh.clear()

    def check(self, token: str) -> None:
        """Raises RestError 401 `invalid_token` or `expired_token`."""
        expires = self._access.get(token)
        if expires is None:
            raise RestError("invalid_token", "Unable to get application by token", 401)
        if expires <= self._clock.now():
            raise RestError("expired_token", "The access token provided has expired.", 401)

    def exchange(self, params: dict[str, Any], base_url: str) -> dict[str, Any]:
        """The token endpoint. Raises RestError with the auth server's codes."""
        if params.get("client_id") != CLIENT_ID or params.get("client_secret") != CLIENT_SECRET:
            raise RestError("invalid_client", "Client authentication failed", 401)
        kind = params.get("grant_type")
        if kind == "authorization_code" and params.get("code") == AUTHORIZATION_CODE:
            answer = self.issue(base_url)
            return {name: value for name, value in answer.items() if name not in ("expires", "user_id")}
        if kind == "refresh_token":
            expires = self._refresh.pop(str(params.get("refresh_token")), 0.0)
            if expires > self._clock.now():
                return self.issue(base_url)
            raise RestError("invalid_grant", "Refresh token is invalid or expired", 400)
        if kind == "authorization_code":
            raise RestError("invalid_grant", "Authorization code is invalid", 400)
        raise RestError("invalid_request", "Unsupported grant_type", 400)
