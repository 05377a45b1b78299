"""A stand-in for W&B's server on the loopback interface: it takes what is sent, and remembers it.

python -m tests.app.wandb_server PORT      for trying things by hand
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

KEY = "k" * 40
_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")


class Server(ThreadingHTTPServer):
    """What it was sent, by sort."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.operations: Counter[str] = Counter()
        self.variables: list[tuple[str, dict[str, Any]]] = []
        self.rows: dict[str, list[dict[str, Any]]] = {}  # history by run
        self.uploads: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []  # workspaces
        self.finished: set[str] = set()
        self.failing = threading.Event()  # every answer is an error from now on
        self.dies_at = ""  # an operation of GraphQL, or "file_stream": it is answered, and then nothing is

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none of the server's business."""

    def count(self) -> int:
        """Rows of history that arrived."""
        return sum(map(len, self.rows.values()))

    def kinds(self) -> Counter[str]:
        """Artifacts by type."""
        return Counter(one["artifactTypeName"] for one in self.artifacts)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of a test."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    lock: ClassVar = threading.Lock()

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(404, {})

    def do_PUT(self) -> None:
        self.server.uploads[self.path] = self._body()
        self._answer(503 if self.server.failing.is_set() else 200, {})

    def do_POST(self) -> None:
        body = self._body()
        if self.server.failing.is_set():
            return self._answer(503, {})
        if not self._is_known():
            return self._answer(401, {"errors": [{"message": "user is not logged in"}]})
        if self.path == "/graphql":
            return self._graphql(json.loads(body))
        if self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(body))
        self._answer(200, {})

    def _is_known(self) -> bool:
        given = self.headers.get("Authorization", "")
        return given == "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode() or given.endswith(KEY)

    def _stream(self, run: str, body: dict[str, Any]) -> None:
        server = self.server
        with self.lock:
            lines = body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            server.rows.setdefault(run, []).extend(map(json.loads, lines))
            if body.get("complete"):
                server.finished.add(run)
            if server.dies_at == "file_stream":
                server.failing.set()

    def _graphql(self, asked: dict[str, Any]) -> None:
        found = _OPERATION.search(asked["query"])
        name, variables = found[1] if found else "", asked.get("variables") or {}
        with self.lock:
            self.server.operations[name] += 1
            self.server.variables.append((name, variables))
            data = self._data(name, variables)
            if name == self.server.dies_at:
                self.server.failing.set()
        self._answer(200, {"data": data})

    def _data(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "e", "name": "lab"}
        if name == "UpsertBucket":
            project = {"id": "p", "name": given.get("project"), "entity": entity}
            bucket = {"id": given.get("name"), "name": given.get("name"), "displayName": "", "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "config": "{}", "historyLineCount": 0}, "inserted": True}}
        if name == "Viewer":
            return {"viewer": {"id": "u", "username": "user", "entity": "lab", "flags": "{}", "teams": {"edges": []}}}
        if name == "GetDefaultEntity":
            return {"viewer": {"id": "u", "entity": "lab"}}
        if name == "UpsertView2":
            self.server.views.append(given)
            return {"upsertView": {"view": {**given, "id": "v", "spec": given["spec"]}, "inserted": True}}
        if name == "CreateArtifact":
            self.server.artifacts.append(given["input"])
            number = f"artifact-{len(self.server.artifacts)}"
            made = {"id": number, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
        if name in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            key = name[0].lower() + name[1:]
            file = self._upload("manifest", len(self.server.variables))
            return {key: {"artifactManifest": {"id": "m", "file": file}}}
        if name == "CreateArtifactFiles":
            edges = [{"node": self._stored(one)} for one in given["input"]["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if name == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}
        if name == "CreateRunFiles":
            files = [{"name": file, **self._upload(file)} for file in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if name == "NotifyScriptableRunAlert":
            self.server.alerts.append(given)
            return {"notifyScriptableRunAlert": {"success": True}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "ArtifactType":  # there is none of this name yet
            return {"project": None}
        if name == "RunResumeStatus":
            return {"model": None}
        return {}

    def _stored(self, one: dict[str, Any]) -> dict[str, Any]:
        return {"id": "f", "name": one["name"], "displayName": one["name"], "artifact": {"id": one["artifactID"]},
                "storagePath": None, "uploadMultipartUrls": None, **self._upload(one["name"])}  # fmt: skip

    def _upload(self, *place: object) -> dict[str, Any]:
        path = "/".join(map(str, place))
        address = f"{self.server.url}/upload/{hashlib.sha256(path.encode()).hexdigest()[:8]}/{path}"
        return {"id": "f", "name": path, "uploadUrl": address, "uploadHeaders": []}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, code: int, data: Any) -> None:
        content = json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    by_hand = Server(int(sys.argv[1]))
    threading.Thread(target=by_hand.serve_forever, daemon=True).start()
    sys.stdin.read()
    print(by_hand.operations, by_hand.count(), by_hand.kinds(), sorted(by_hand.uploads), by_hand.finished, sep="\n")
    for told in by_hand.variables[-3:]:
        print(str(told)[:400])
