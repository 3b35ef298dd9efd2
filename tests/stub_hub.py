"""The few pages of the Hugging Face hub that a model needs to be uploaded and downloaded, on localhost and in memory."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import yaml

TOKEN = "hf_stub"


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): pass

    def answer(self, content=b"", status=200, **headers):
        "Bytes as they are, all else as JSON."
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for k, v in ({"Content-Length": str(len(data))} | {k.replace("_", "-"): v for k, v in headers.items()}).items(): self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(data)

    def handle_any(self):
        state, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.seen.append(f"{self.command} {path}")
        if self.command in ("POST", "PUT") and "/lfs-store/" not in path and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "no"}, 401, X_Error_Message="Invalid username or password.")
        for pattern, page in PAGES.items():
            if m := re.fullmatch(pattern, f"{self.command} {path}"): return page(self, state, body, *m.groups())
        self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any


def create(self, hub, body):
    said = json.loads(body)
    repo = f"{said['organization'] or 'me'}/{said['name']}"
    hub.repos.setdefault(repo, {})
    self.answer({"url": f"{hub.url}/{repo}"})


def validate(self, hub, body):
    "As the hub does: the card's head must be YAML with a well-formed model-index."
    head = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
    for result in head.get("model-index", [{}])[0].get("results", []):
        good = result["task"]["type"] and re.fullmatch(r"[\w./-]+", result["dataset"]["type"]) and all(isinstance(m["value"], float) for m in result["metrics"])
        if not good: return self.answer({"errors": [{"message": "model-index"}]}, 400)
    self.answer({"errors": [], "warnings": []})


def preupload(self, hub, body, repo, revision):
    mode = lambda path: "lfs" if path.endswith((".safetensors", ".png")) else "regular"
    self.answer({"files": [dict(path=f["path"], uploadMode=mode(f["path"]), shouldIgnore=False) for f in json.loads(body)["files"]]})


def batch(self, hub, body, repo):
    objects = [o | {"actions": {"upload": {"href": f"{hub.url}/lfs-store/{o['oid']}"}}} for o in json.loads(body)["objects"]]
    self.answer({"transfer": "basic", "objects": objects})


def store(self, hub, body, oid):
    if hashlib.sha256(body).hexdigest() != oid: return self.answer(status=400)
    hub.store[oid] = body
    self.answer()


def commit(self, hub, body, repo, revision):
    for line in map(json.loads, body.splitlines()):
        v = line["value"]
        if line["key"] == "file": hub.repos[repo][v["path"]] = base64.b64decode(v["content"])
        if line["key"] == "lfsFile": hub.repos[repo][v["path"]] = hub.store[v["oid"]]
    self.answer({"commitUrl": f"{hub.url}/{repo}/commit/{sha(hub.repos[repo])}", "commitOid": sha(hub.repos[repo])})


def sha(files): return hashlib.sha1(b"".join(p.encode() + files[p] for p in sorted(files))).hexdigest()


def info(self, hub, body, repo, revision):
    if repo not in hub.repos: return self.answer({"error": "no"}, 404, X_Error_Code="RepoNotFound")
    if revision not in ("main", sha(hub.repos[repo])): return self.answer({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
    self.answer({"id": repo, "sha": sha(hub.repos[repo]), "siblings": [{"rfilename": p} for p in hub.repos[repo]], "private": False, "tags": [], "downloads": 0, "likes": 0})


def tree(self, hub, body, repo, revision):
    self.answer([dict(type="file", path=p, size=len(data), oid=hashlib.sha1(data).hexdigest()) for p, data in hub.repos[repo].items()])


def resolve(self, hub, body, repo, revision, path):
    if path not in hub.repos.get(repo, {}): return self.answer({"error": "no"}, 404, X_Error_Code="EntryNotFound")
    data = hub.repos[repo][path]
    self.answer(data, X_Repo_Commit=sha(hub.repos[repo]), ETag=f'"{hashlib.sha1(data).hexdigest()}"')


REPO = r"([\w.-]+/[\w.-]+)"
PAGES = {
    "POST /api/repos/create": create,
    "POST /api/validate-yaml": validate,
    rf"POST /api/models/{REPO}/preupload/(\w+)": preupload,
    rf"POST /{REPO}\.git/info/lfs/objects/batch": batch,
    r"PUT /lfs-store/(\w+)": store,
    rf"POST /api/models/{REPO}/commit/(\w+)": commit,
    rf"GET /api/models/{REPO}/revision/(\w+)": info,
    rf"GET /api/models/{REPO}/tree/(\w+)": tree,
    rf"(?:GET|HEAD) /{REPO}/resolve/(\w+)/(.+)": resolve,
}


@contextmanager
def stub_hub():
    "A running hub: `.url`, `.repos` (name -> path -> bytes), `.seen` (the requests)."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url, server.repos, server.store, server.seen = f"http://127.0.0.1:{server.server_port}", {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield server
    finally: server.shutdown(); server.server_close()
