"""A backend that knows nothing of tokens. Who asks is in the X-Auth- headers, which baton writes and nobody else can,
as long as this listens where baton alone reaches it.

    python3 backend.py [PORT]
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "axum-api" / "front"
CLIENT = HERE.parent.parent / "clients" / "typescript" / "dist"
MAX_BODY = 64 * 1024


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/greet":
            self.answer(200, "text/plain; charset=utf-8", f"hello, {self.uid() or 'stranger'}".encode())
        elif path == "/told":
            self.answer_json(200, {name.lower(): value for name, value in self.headers.items()})
        else:
            self.answer_file(path)

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True  # the body stays unread
            return self.answer_json(413, {"errors": ["A body of at most 64 KiB is needed, with its length."]})
        body = self.rfile.read(int(length))
        if self.path != "/orders":
            return self.answer_json(404, {"errors": ["There is nothing here."]})
        try:
            item = json.loads(body)["item"]
        except (ValueError, TypeError, KeyError):
            return self.answer_json(422, {"errors": ["An order is an object with an item."]})
        # baton lets nobody through to /orders who is not signed in.
        self.answer_json(200, {"ordered": item, "for": self.uid()})

    def uid(self):
        """Who is signed in. http.server reads headers as Latin-1, and this one is UTF-8."""
        uid = self.headers.get("X-Auth-Uid")
        return uid and uid.encode("latin-1").decode("utf-8")

    def answer_file(self, path):
        folder, name = (CLIENT, path[len("/client/") :]) if path.startswith("/client/") else (PAGE, path[1:] or "index.html")
        file = next((file for file in folder.iterdir() if file.name == name and file.is_file()), None)
        if file is None:
            return self.answer_json(404, {"errors": ["There is nothing here."]})
        self.answer(200, guess_type(name)[0] or "application/octet-stream", file.read_bytes())

    def answer_json(self, status, value):
        self.answer(status, "application/json", json.dumps(value).encode())

    def answer(self, status, content_type, body):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        user = self.headers.get("X-Auth-User-Id") if hasattr(self, "headers") else None
        print(f"user {user or '-'}: {format % args}", file=sys.stderr)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = ThreadingHTTPServer(("127.0.0.1", port), Backend)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
