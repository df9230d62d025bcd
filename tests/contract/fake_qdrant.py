"""As much of Qdrant's REST interface as the client engine uses, over brute force, in a thread; it can misbehave.

Written against the request and response models of qdrant-client, which is the only one to speak to it here. What a real
server does beyond that (indexing, consensus, limits) it does not know.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np

Json = dict[str, Any]


class FakeQdrant:
    """A server on a free port. `mode`: ok, slow (answers nothing until it is changed), cut (half an answer), refuse."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.api_key: str | None = None
        self.made: dict[str, Json] = {}  # collections, as they were asked for
        self.rows: dict[str, dict[str, tuple[np.ndarray, Json]]] = {}
        self.requests = 0
        self.changed = threading.Event()
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.requests += 1
                code, result = fake.handle(
                    self.command, urlsplit(self.path).path, json.loads(body or b"null"), self.headers
                )
                data = json.dumps(
                    {"result": result, "status": "ok" if code == 200 else {"error": result}, "time": 0.0}
                ).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data if fake.mode != "cut" else data[: len(data) // 2])
                if fake.mode == "cut":
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_DELETE = answer  # http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def become(self, mode: str) -> None:
        self.mode = mode
        self.changed.set()
        self.changed = threading.Event()

    def close(self) -> None:
        self.become("refuse")
        self.server.shutdown()
        self.server.server_close()

    def handle(self, method: str, path: str, body: Any, headers: Any) -> tuple[int, Any]:
        while self.mode == "slow":
            self.changed.wait(60)
        if self.mode == "refuse" or (self.api_key is not None and headers.get("api-key") != self.api_key):
            return 401, "Must provide an API key or an Authorization bearer token"
        with self.lock:
            words = path.strip("/").split("/")
            assert words[0] == "collections", path
            if len(words) == 1:
                return 200, {"collections": [{"name": name} for name in self.rows]}
            name, rest = words[1], (method, *words[2:])
            if rest == ("GET", "exists"):
                return 200, {"exists": name in self.rows}
            if rest == ("PUT",):
                self.made[name] = body
                self.rows.setdefault(name, {})
                return 200, True
            if rest == ("DELETE",):
                return 200, self.rows.pop(name, None) is not None
            if name not in self.rows:
                return 404, f"Collection `{name}` doesn't exist!"
            return 200, self.points(self.rows[name], rest, body)

    def points(self, rows: dict[str, tuple[np.ndarray, Json]], rest: tuple[str, ...], body: Json) -> Any:
        done = {"operation_id": 0, "status": "completed"}
        if rest == ("PUT", "index"):
            return done
        if rest == ("PUT", "points"):
            batch = body["batch"]
            for number, vector, payload in zip(batch["ids"], batch["vectors"], batch["payloads"], strict=True):
                array = np.array(vector)
                rows[number] = (array / np.linalg.norm(array), payload)
            return done
        if rest == ("POST", "points", "delete"):
            for number in body["points"]:
                rows.pop(number, None)
            return done
        if rest == ("POST", "points"):
            return [self.shown(number, rows) for number in body["ids"] if number in rows]
        if rest == ("POST", "points", "count"):
            return {"count": len(rows)}
        if rest == ("POST", "points", "scroll"):
            chosen = sorted(number for number in self.of(rows, body) if number >= (body.get("offset") or ""))
            following = chosen[body["limit"]] if len(chosen) > body["limit"] else None
            return {
                "points": [self.shown(each, rows) for each in chosen[: body["limit"]]],
                "next_page_offset": following,
            }
        assert rest == ("POST", "points", "query", "batch"), rest
        return [{"points": self.nearest(rows, search)} for search in body["searches"]]

    @staticmethod
    def of(rows: dict[str, tuple[np.ndarray, Json]], body: Json) -> list[str]:
        wanted = {each["key"]: each["match"]["value"] for each in body["filter"]["must"]}
        return [number for number, (_, payload) in rows.items() if all(payload[key] == wanted[key] for key in wanted)]

    def nearest(self, rows: dict[str, tuple[np.ndarray, Json]], search: Json) -> list[Json]:
        query = np.array(search["query"]["nearest"])
        query = query / np.linalg.norm(query)
        least = search.get("score_threshold")
        scored = sorted(((float(rows[number][0] @ query), number) for number in self.of(rows, search)), reverse=True)
        return [
            {"id": number, "version": 0, "score": score, "payload": rows[number][1]}
            for score, number in scored[: search["limit"]]
            if least is None or score >= least
        ]

    @staticmethod
    def shown(number: str, rows: dict[str, tuple[np.ndarray, Json]]) -> Json:
        vector, payload = rows[number]
        return {"id": number, "vector": vector.tolist(), "payload": payload}
