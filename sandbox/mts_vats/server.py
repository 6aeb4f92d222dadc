"""HTTP of the emulated cabinet: login pages, scripts, remote calls, and a control of its own."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from email.utils import formatdate
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sandbox.loopback import require_loopback
from sandbox.mts_vats.cabinet import INCOMPATIBLE, SWITCH, CabinetConfig, VirtualCabinet
from sandbox.mts_vats.wire import Incompatible, read_call, thrown

MAX_BODY = 1 << 20
LOGIN_PAGE = """<!DOCTYPE html>
<html lang="ru"><head><title>Вход — Виртуальная АТС</title></head><body>
<form id="loginForm" action="/j_spring_security_check" method="post">
<input name="j_username"><input type="password" name="j_password"><input type="submit" value="Войти">
</form></body></html>"""
HOME = "<!DOCTYPE html><html><head><title>Виртуальная АТС</title></head><body>Личный кабинет</body></html>"
FAILED = "The call failed on the server; see server log for details"


def nocache_script(cabinet: VirtualCabinet) -> str:
    return (
        f"function vpbxGwt(){{var P='bootstrap',T='vpbxGwt',bc='{cabinet.permutation}',cc='.cache.js';"
        "function gc(){return bc}}vpbxGwt.succeeded=vpbxGwt();"
    )


def cache_script(cabinet: VirtualCabinet) -> str:
    lines = ['var $gwt_version = "2.7.0";', f"var $strongName = '{cabinet.permutation}';"]
    for number, (endpoint, policy) in enumerate(cabinet.policies.items()):
        lines.append(
            f"function K{number}(){{HZb.call(this,(Qw(),$moduleBase),'{endpoint}','{policy}',L{number})}}"
        )
    lines.append(f"d=new XB(this,'AbonentDeviceFormGwtService_Proxy','{SWITCH}');")
    if not cabinet.config.names_hidden:
        lines += [f"c{n}=new Qx('{name}',{n});" for n, name in enumerate(cabinet.forms)]
    lines.append("_.a={" + ",".join(f"'{signature}':[a]" for signature in cabinet.layouts()) + "};")
    return "\n".join(lines)


class Handler(BaseHTTPRequestHandler):
    """One connection; requests on it are answered in order."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    cabinet: VirtualCabinet

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.cabinet.config.clock_offset_s, usegmt=True)

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self._send(413, "")
            return
        self._serve(self.rfile.read(length))

    def _serve(self, body: bytes) -> None:
        path = urlsplit(self.path).path
        if path.startswith(("/stats", "/control")):
            self._control(path, body)
            return
        with self.cabinet.lock:
            self.cabinet.stats.requests += 1
        if self.cabinet.config.latency_s:
            time.sleep(self.cabinet.config.latency_s)
        if path == "/j_spring_security_check":
            self._log_in(body)
        elif path.startswith("/login"):
            self._send(200, LOGIN_PAGE, "text/html; charset=utf-8")
        elif not self._known():
            self._redirect("/login/;jsessionid=7nyrvd5rxi67nfrpyz21tbic1")
        elif path.startswith("/vpbxGwt/"):
            self._module(path.removeprefix("/vpbxGwt/"), body)
        elif path == "/":
            self._redirect(f"/gwt/enterprise/{self.cabinet.config.enterprise}/")
        else:
            self._send(200, HOME, "text/html; charset=utf-8")

    def _known(self) -> bool:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("JSESSIONID")
        with self.cabinet.lock:
            return cookie is not None and cookie.value in self.cabinet.sessions

    def _log_in(self, body: bytes) -> None:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        session = self.cabinet.log_in(form.get("j_username", ""), form.get("j_password", ""))
        if session is None:
            self._redirect("/login/?error=1")
        else:
            cookie = {"Set-Cookie": f"JSESSIONID={session};Path=/"}
            self._redirect(f"/gwt/enterprise/{self.cabinet.config.enterprise}/", cookie)

    def _module(self, name: str, body: bytes) -> None:
        with self.cabinet.lock:
            scripts = {
                "vpbxGwt.nocache.js": nocache_script,
                f"{self.cabinet.permutation}.cache.js": cache_script,
            }
            script = scripts[name](self.cabinet) if name in scripts else None
        if script is not None:
            self._send(200, script, "application/javascript; charset=utf-8")
        elif self.command == "POST" and name.endswith("GwtService"):
            self._remote(name, body)
        else:
            self._send(404, "")

    def _remote(self, endpoint: str, body: bytes) -> None:
        type_ = self.headers.get("Content-Type", "").lower()
        if "text/x-gwt-rpc" not in type_ or "utf-8" not in type_ or not self.headers.get("X-GWT-Permutation"):
            self._send(500, FAILED, "text/plain")
            return
        with self.cabinet.lock:
            self.cabinet.busy += 1
            alone = self.cabinet.busy == 1
        try:
            self._answer_call(endpoint, body, alone=alone)
        finally:
            with self.cabinet.lock:
                self.cabinet.busy -= 1

    def _answer_call(self, endpoint: str, body: bytes, *, alone: bool) -> None:
        cabinet, config = self.cabinet, self.cabinet.config
        with cabinet.lock:
            cabinet.stats.calls += 1
            cabinet.stats.most_at_once = max(cabinet.stats.most_at_once, cabinet.busy)
            number = cabinet.stats.calls
            if number == config.redeploy_at:
                cabinet.redeploy()
                self._redirect("/login/;jsessionid=45aez732pgojj7g3f9caiocti")
                return
            if (config.expire_every and number % config.expire_every == 0) or (config.overlap and not alone):
                cabinet.sessions.clear()
                self._redirect("/login/;jsessionid=45aez732pgojj7g3f9caiocti")
                return
            if config.fail_every and number % config.fail_every == 0:
                self._send(500, FAILED, "text/plain")
                return
            try:
                call = read_call(body.decode(), cabinet.layouts())
                text = cabinet.execute(endpoint, call)
            except Incompatible as error:
                said = "This application is out of date, please click the refresh button on your browser."
                text = thrown(INCOMPATIBLE, f"{said} ( {error} )", cabinet.dialect())
        headers = {"Content-Disposition": "attachment"}
        self._send(200, text, "application/json; charset=utf-8", headers)

    def _control(self, path: str, body: bytes) -> None:
        cabinet = self.cabinet
        asked: dict[str, Any] = json.loads(body or b"{}")
        try:
            with cabinet.lock:
                match path:
                    case "/stats":
                        result: Any = asdict(cabinet.stats)
                    case "/control/redeploy":
                        result = cabinet.redeploy()
                    case "/control/expire":
                        result = cabinet.sessions.clear()
                    case "/control/settings":
                        for name, value in asked.items():
                            if not hasattr(cabinet.config, name):
                                raise KeyError(name)
                            setattr(cabinet.config, name, value)
                        result = asdict(cabinet.config) | {"password": "***"}
                    case "/control/trunk":
                        result = self._change(asked)
                    case _:
                        raise KeyError(path)
        except (KeyError, StopIteration) as error:
            self._send(404, json.dumps({"error": f"not known: {error}"}), "application/json")
            return
        self._send(200, json.dumps(result), "application/json")

    def _change(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add a trunk, or change or remove one by its phone."""
        cabinet = self.cabinet
        trunk = cabinet.by_phone(asked["phone"]) if "phone" in asked else cabinet.add()
        for name, value in asked.get("values", {}).items():
            if not hasattr(trunk, name):
                raise KeyError(name)
            setattr(trunk, name, tuple(value) if name == "flags" else value)
        if asked.get("remove"):
            del cabinet.trunks[trunk.id]
        return {"id": trunk.id, "phone": trunk.phone}

    def _redirect(self, path: str, headers: dict[str, str] | None = None) -> None:
        self._send(302, "", headers={"Location": self.cabinet.base_url + path, **(headers or {})})

    def _send(
        self, status: int, text: str, type_: str = "text/html", headers: dict[str, str] | None = None
    ) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": type_,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def make_server(
    cabinet: VirtualCabinet,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: tuple[str | Path, str | Path] | None = None,
) -> ThreadingHTTPServer:
    """A server that is bound and not running yet; `certificate` is (chain, key)."""
    require_loopback(host)
    server = _Server((host, port), type("BoundHandler", (Handler,), {"cabinet": cabinet}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    cabinet.base_url = f"{'https' if certificate else 'http'}://{host}:{server.server_address[1]}"
    return server


@contextmanager
def serve(
    config: CabinetConfig | None = None, certificate: tuple[str | Path, str | Path] | None = None
) -> Iterator[VirtualCabinet]:
    """A cabinet on a free port for the block."""
    cabinet = VirtualCabinet(config)
    server = make_server(cabinet, certificate=certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="sandbox-mts-vats", daemon=True)
    thread.start()
    try:
        yield cabinet
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
