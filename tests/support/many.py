"""A service with more artifacts than anybody looks at: Syntropic137's lists, made up while they are asked for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PAGE = 200
WORKFLOWS_PAGE = 100


class Many:
    """Serves ``workflows`` x ``artifacts``; use as a context manager."""

    def __init__(self, workflows: int, artifacts: int) -> None:
        """Prepare to serve; nothing is kept for any artifact."""
        self.workflows, self.artifacts = workflows, artifacts
        self.requests = 0
        many = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                many.requests += 1
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                found = many.answer(parts.path.removeprefix("/api/v1"), query)
                body = json.dumps(found if found is not None else {"detail": "there is no such thing"}).encode()
                self.send_response(200 if found is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End serving."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        page = int(query.get("page", "1")) - 1
        if path == "/workflows":
            rows = range(self.workflows)[page * WORKFLOWS_PAGE : (page + 1) * WORKFLOWS_PAGE]
            found = [{"id": f"workflow-{n}", "name": f"Workflow number {n}", "workflow_type": "x"} for n in rows]
            return {"workflows": found, "total": self.workflows, "page": page + 1, "page_size": WORKFLOWS_PAGE}
        if path == "/sessions":
            return {"sessions": []}
        if path != "/artifacts":
            return None
        workflow = query.get("workflow_id")
        total = self.artifacts if workflow else 0
        rows = range(total)[page * PAGE : (page + 1) * PAGE]
        found = [self._row(str(workflow), n) for n in rows]
        return {"artifacts": found, "total": total, "page": page + 1, "page_size": PAGE}

    @staticmethod
    def _row(workflow: str, n: int) -> dict[str, Any]:
        number = int(workflow.rpartition("-")[2]) * 10**6 + n
        return {
            "id": f"{number:08x}-0000-4000-8000-{number:012x}", "workflow_id": workflow, "phase_id": None,
            "session_id": None, "artifact_type": "text", "title": f"Report number {n} of many.md", "size_bytes": n,
            "created_at": f"2026-05-{1 + n % 28:02}T10:00:00+00:00",
        }  # fmt: skip
