"""A service with more artifacts than anybody looks at: its lists are made up while they are asked for.

``Many`` serves from a thread of the test; ``ManyElsewhere`` from a process of its own, so that what it costs is not
taken for what the mount costs. Syntropic137's lists of the later generation, with pages, and VLM Run's files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PAGE = 200
WORKFLOWS_PAGE = 100
CONTENT = "what is in all of them\n"
COUNT = "/count"


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
                parts = urlsplit(self.path)
                many.requests += parts.path != COUNT
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                found = many.answer(parts.path.removeprefix("/api/v1"), query)
                body = json.dumps(found if found is not None else {"detail": "there is no such thing"}).encode()
                if isinstance(found, str):
                    body = found.encode()
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

    def answer(self, path: str, query: dict[str, str]) -> object:
        """Return what is at a path, None if there is nothing."""
        page = int(query.get("page", "1")) - 1
        if path == COUNT:
            return self.requests
        if path == "/workflows":
            rows = range(self.workflows)[page * WORKFLOWS_PAGE : (page + 1) * WORKFLOWS_PAGE]
            found = [{"id": f"workflow-{n}", "name": f"Workflow number {n}", "workflow_type": "x"} for n in rows]
            return {"workflows": found, "total": self.workflows, "page": page + 1, "page_size": WORKFLOWS_PAGE}
        if path == "/sessions":
            return {"sessions": []}
        if path.startswith(("/files", "/agent")):
            return self._vlmrun(path, query)
        if path.endswith("/content"):
            return {"artifact_id": path.split("/")[2], "content": CONTENT, "size_bytes": len(CONTENT)}
        if path != "/artifacts":
            return None
        workflow = query.get("workflow_id")
        total = self.artifacts if workflow else 0
        rows = range(total)[page * PAGE : (page + 1) * PAGE]
        return {
            "artifacts": [self._row(str(workflow), n) for n in rows],
            "total": total, "page": page + 1, "page_size": PAGE,
        }  # fmt: skip

    @staticmethod
    def _row(workflow: str, n: int) -> dict[str, Any]:
        number = int(workflow.rpartition("-")[2]) * 10**6 + n
        return {
            "id": f"{number:08x}-0000-4000-8000-{number:012x}", "workflow_id": workflow, "phase_id": None,
            "session_id": None, "artifact_type": "text", "title": f"Report number {n} of many.md", "size_bytes": n,
            "created_at": f"2026-05-{1 + n % 28:02}T10:00:00+00:00",
        }  # fmt: skip

    def _vlmrun(self, path: str, query: dict[str, str]) -> object:
        """Answer as VLM Run does, whose accounts have no workflows: all are files."""
        if path.startswith("/agent"):
            return []
        if path == "/files":
            begin = int(query.get("skip", "0"))
            return [self._file(n) for n in range(self.artifacts)[begin : begin + int(query.get("limit", "10"))]]
        number = int(path.rpartition("-")[2], 16)
        return {**self._file(number), "public_url": f"{self.url}/bytes/{number}"}

    @staticmethod
    def _file(n: int) -> dict[str, Any]:
        return {
            "id": f"{n:08x}-0000-4000-8000-{n:012x}", "filename": f"Scan number {n} of many.pdf", "bytes": len(CONTENT),
            "purpose": "assistants", "created_at": f"2026-05-{1 + n % 28:02}T10:00:00Z",
        }  # fmt: skip


class ManyElsewhere:
    """``Many`` in a process of its own; use as a context manager."""

    def __init__(self, workflows: int, artifacts: int) -> None:
        """Begin the process."""
        command = [sys.executable, "-m", __name__, str(workflows), str(artifacts)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    @property
    def requests(self) -> int:
        """Return how many there were."""
        with urllib.request.urlopen(self.url + COUNT, timeout=30) as reply:
            return int(reply.read())

    def __enter__(self) -> Self:
        """Serve."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, which ends with its standard input."""
        self._process.communicate(timeout=30)


def main() -> None:
    """Serve what the arguments say until the standard input ends."""
    with Many(int(sys.argv[1]), int(sys.argv[2])) as many:
        sys.stdout.write(many.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
