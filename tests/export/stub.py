"""A Hub of this machine: repositories in memory, each push a commit, at the real one's paths."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

SECRET = "hf_secret"


class Stub:
    """What it holds: by kind and name of a repository its commits, the newest last."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.address = ""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Add files to a repository, as in `models/me/small`; return the commit's name."""
        known = self.commits.setdefault(repository, [])
        whole = {**(known[-1][1] if known else {}), **files}
        seed = repr((repository, len(known), sorted(whole.items())))
        known.append((hashlib.sha1(seed.encode()).hexdigest(), whole))
        return known[-1][0]

    def at(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        known = self.commits.get(repository) or []
        if revision == "main":
            return known[-1] if known else None
        return next((one for one in known if one[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def _answer(self, status: int, body: object = b"", **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.stub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(found[1], found[2] or "main")
        if found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            return self._tree(found[1], found[2], found[3] or "")
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = found[1] or "models/"
            return self._file(kind + found[2], found[3], found[4])
        return self._answer(404, {"error": "nothing"})

    def _missing(self, code: str) -> None:
        self._answer(404, {"error": code}, X_Error_Code=code)

    def _info(self, repository: str, revision: str) -> None:
        if repository not in self.stub.commits:
            return self._missing("RepoNotFound")
        found = self.stub.at(repository, revision)
        if found is None:
            return self._missing("RevisionNotFound")
        name = repository.split("/", 1)[1]
        siblings = [{"rfilename": file} for file in found[1]]
        told = {"id": name, "sha": found[0], "private": False, "siblings": siblings, "tags": []}
        return self._answer(200, told)

    def _entry(self, path: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": path, "size": len(content), "oid": digest}

    def _tree(self, repository: str, revision: str, inside: str) -> None:
        found = self.stub.at(repository, revision)
        if found is None:
            return self._missing("RevisionNotFound")
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() == "true"
        start = f"{inside}/" if inside else ""
        told = {}
        for path, content in found[1].items():
            if path.startswith(start):
                rest = path[len(start) :]
                if "/" in rest:
                    folder = start + rest.split("/")[0]
                    told[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
                if deep or "/" not in rest:
                    told[path] = self._entry(path, content)
        return self._answer(200, list(told.values()))

    def _file(self, repository: str, revision: str, path: str) -> None:
        found = self.stub.at(repository, revision)
        if found is None:
            return self._missing("RepoNotFound")
        if path not in found[1]:
            return self._missing("EntryNotFound")
        content = found[1][path]
        known = {"X_Repo_Commit": found[0], "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            part = content[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
            end = int(asked[1]) + len(part) - 1
            span = f"bytes {asked[1]}-{end}/{len(content)}"
            return self._answer(206, part, Content_Range=span, **known)
        return self._answer(200, content, Content_Length=str(len(content)), **known)

    def do_PUT(self) -> None:
        body = self._body()
        self.stub.blobs[hashlib.sha256(body).hexdigest()] = body
        self._answer(200)

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.stub.asked.append(f"POST {path}")
        if found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/paths-info/(.+)", path):
            commit = self.stub.at(found[1], found[2])
            asked = parse_qs(body.decode()).get("paths") if b"=" in body else None
            names = asked or json.loads(body)["paths"]
            return self._answer(200, self._paths(commit[1] if commit else {}, names))
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self._answer(
                200, {"errors": _wrong(json.loads(body)["content"]), "warnings": []}
            )
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"models/{told['organization']}/{told['name']}"
            if name in self.stub.private:
                return self._answer(409, {"url": f"{self.stub.address}/{name[7:]}"})
            hides = told.get("private") or told.get("visibility") == "private"
            self.stub.private[name] = bool(hides)
            self.stub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
            return self._answer(200, {"url": f"{self.stub.address}/{name[7:]}"})
        if re.fullmatch(r"/api/models/.+/preupload/.+", path):
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": modes})
        if path.endswith(".git/info/lfs/objects/batch"):
            where = {"upload": {"href": f"{self.stub.address}/blobs", "header": {}}}
            objects = [{**one, "actions": where} for one in json.loads(body)["objects"]]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/(models/[^/]+/[^/]+)/commit/(.+)", path):
            return self._commit(found[1], body)
        return self._answer(404, {"error": "nothing"})

    def _paths(self, files: dict[str, bytes], names: list[str]) -> list[dict[str, object]]:
        told = [self._entry(name, files[name]) for name in names if name in files]
        for name in names:
            if any(file.startswith(f"{name}/") for file in files):
                told.append({"type": "directory", "path": name, "size": 0, "oid": "0" * 40})
        return told

    def _commit(self, repository: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stub.blobs[value["oid"]]
        commit = self.stub.commit(repository, files)
        url = f"{self.stub.address}/{repository[7:]}/commit/{commit}"
        self._answer(200, {"commitUrl": url, "commitOid": commit, "hookOutput": ""})


def _wrong(card: str) -> list[dict[str, str]]:
    import yaml

    try:
        known = yaml.safe_load(card.split("---\n")[1])
        return [] if "library_name" in known else [{"message": "no library"}]
    except (yaml.YAMLError, IndexError) as error:
        return [{"message": str(error)}]


@contextlib.contextmanager
def serving() -> Iterator[Stub]:
    """Serve a Hub at an address of this machine."""
    stub = Stub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        stub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
