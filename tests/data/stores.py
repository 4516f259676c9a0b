"""Where sounds behind a URL are, on this machine: a web server, the Hub's interface, an object storage."""

import contextlib
import functools
import http.server
import json
import threading
from pathlib import Path

import pytest


class Web(http.server.SimpleHTTPRequestHandler):
    """A web server that answers requests for ranges, which Python's own does not, and remembers them."""

    asked: list[tuple[str, str | None]]

    def do_GET(self):
        asked = self.headers.get("Range")
        self.asked.append((self.path, asked))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, size = path.read_bytes(), path.stat().st_size
        first, last = 0, size - 1
        if asked:
            start, end = asked.removeprefix("bytes=").split("-")
            first, last = int(start), min(int(end or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def do_HEAD(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()

    def log_message(self, *said):
        pass


class Hub(Web):
    """What the Hugging Face Hub answers to who reads the data set me/corpus: facts, folders, files."""

    FACTS = ("/api/datasets/me/corpus", "/api/datasets/me/corpus/revision/main")
    FOLDERS = "/api/datasets/me/corpus/tree/main"
    FILES = "/datasets/me/corpus/resolve/main"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path in self.FACTS:
            self.answer({"id": "me/corpus", "sha": "0" * 40, "private": False, "tags": [], "siblings": []})
        elif path.startswith(self.FOLDERS):
            self.list_folder(path.removeprefix(self.FOLDERS))
        else:
            self.path = path.removeprefix(self.FILES)
            super().do_GET()

    def list_folder(self, name):
        self.asked.append((name, "listed"))
        folder = Path(self.directory + name)
        if not folder.is_dir():
            self.answer({"error": "no such path"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        found = [
            {
                "type": "directory" if each.is_dir() else "file",
                "oid": "0" * 40,
                "size": 0 if each.is_dir() else each.stat().st_size,
                "path": str(each.relative_to(self.directory)),
            }
            for each in sorted(folder.iterdir())
        ]
        self.answer(found)

    def answer(self, content, code=200, headers=()):
        said = json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(said)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)


@contextlib.contextmanager
def serving(kind, folder):
    """A folder on a web server: its URL, and what is asked for."""
    asked = []
    kind = type("Asked", (kind,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # between two looks at its end
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:  # or a test that fails never ends
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def object_storage(folder):
    """A folder in an object storage that speaks S3, where moto and s3fs are installed: its URL."""
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "anybody")
        system = s3fs.S3FileSystem()
        system.mkdir("bucket")
        for path in folder.rglob("*.*"):
            system.pipe_file(f"bucket/{path.relative_to(folder)}", path.read_bytes())
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()
