"""As much of the Hub's HTTP interface as huggingface_hub uses for models, in memory, with faults on demand."""

import base64
import dataclasses
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

OWNER, READER = 'hf_owner', 'hf_reader'  # tokens: one may write to `me/`, one may write nowhere


@dataclasses.dataclass
class Fault:
    """What goes wrong: the first `times` requests of `method` whose path contains `path`, after `skip` good ones.

    Attributes:
        status: Answered in place of the work, with `headers` and `body`.
        cut: Closed before the work, 'before'; after it and without an answer, 'after'; in the middle of a body, 'body'.
        tamper: A byte of the body is changed.
        drip: Seconds between two bytes of a body, of which only a few are sent.
    """

    method: str
    path: str
    status: int = 0
    cut: str = ''
    tamper: bool = False
    drip: float = 0
    body: bytes = b'{"error": "planted"}'
    times: int = 1
    skip: int = 0
    headers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Repo:
    private: bool
    commits: dict[str, dict[str, tuple[str, bytes]]] = dataclasses.field(default_factory=dict)  # sha: path: etag, data
    branches: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, branch: str, files: dict[str, tuple[str, bytes]]) -> str:
        sha = hashlib.sha1(f'{len(self.commits)}{sorted(files)}'.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> Optional[str]:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, code: str = '', body: Any = None):
        self.status, self.code, self.body = status, code, body or {'error': code or str(status)}


class Hub(ThreadingHTTPServer):
    """The state and its routes; `faults` is for tests to fill and `log` to read."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str]] = []
        self.cdn_headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):  # a client that went away is part of the tests
        pass

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def fault(self, method: str, path: str) -> Optional[Fault]:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.path in path and fault.times > 0:
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None

    def repo(self, name: str, token: Optional[str]) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and token != OWNER):
            raise Refused(404 if token else 401, 'RepoNotFound')
        return repo

    def commit_of(self, name: str, revision: str, token: Optional[str]) -> tuple[str, dict]:
        repo = self.repo(name, token)
        sha = repo.resolve(unquote(revision))
        if sha is None:
            raise Refused(404, 'RevisionNotFound')
        return sha, repo.commits[sha]

    # The routes: (token, body, path's groups) -> JSON

    def create(self, token, body):
        name = f'{body["organization"]}/{body["name"]}'
        if token is None:
            raise Refused(401)
        if token != OWNER or body['organization'] != 'me':
            raise Refused(403)
        if name in self.repos:
            raise Refused(409, body={'error': 'exists', 'url': f'{self.url}/{name}'})
        private = body.get('visibility') == 'private' or bool(body.get('private'))
        self.repos[name] = Repo(private)
        attributes = b'*.safetensors filter=lfs\n'
        self.repos[name].add('main', {'.gitattributes': (git_hash(attributes), attributes)})
        return {'url': f'{self.url}/{name}'}

    def delete(self, token, body):
        if token != OWNER:
            raise Refused(403)
        self.repos.pop(f'{body["organization"]}/{body["name"]}')
        return {}

    def info(self, token, body, name, revision='main'):
        sha, files = self.commit_of(name, revision, token)
        return {
            'id': name,
            'modelId': name,
            'sha': sha,
            'private': self.repos[name].private,
            'tags': [],
            'siblings': [{'rfilename': path} for path in files],
        }

    def branch(self, token, body, name, branch):
        repo = self.repo(name, token)
        repo.branches[unquote(branch)] = repo.branches['main']
        return {}

    def delete_branch(self, token, body, name, branch):
        del self.repo(name, token).branches[unquote(branch)]
        return {}

    def validate_yaml(self, token, body):
        found = re.match(r'---\n(.*?)\n---\n', body['content'], re.S)
        data = yaml.safe_load(found.group(1)) if found else {}
        faults = [
            f'"{key}" must be a string'
            for key in ('license', 'library_name', 'pipeline_tag')
            if not isinstance(data.get(key), str)
        ]
        faults += [
            '"license_name" is needed' for _ in (1,) if data.get('license') == 'other' and 'license_name' not in data
        ]
        faults += ['"model-index" has a null' for _ in (1,) if None in _leaves(data.get('model-index', []))]
        if faults:
            raise Refused(400, body={'errors': [{'message': fault} for fault in faults], 'warnings': []})
        return {'errors': [], 'warnings': []}

    def preupload(self, token, body, name, revision):
        _, files = self.commit_of(name, revision, token)
        self.may_write(token, name)
        return {
            'files': [
                {
                    'path': file['path'],
                    'shouldIgnore': False,
                    'oid': files.get(file['path'], (None,))[0],
                    'uploadMode': 'lfs' if file['path'].endswith('.safetensors') else 'regular',
                }
                for file in body['files']
            ]
        }

    def may_write(self, token, name):
        if token != OWNER or not name.startswith('me/'):
            raise Refused(403)

    def lfs_batch(self, token, body, name):
        self.repo(name, token)
        objects = []
        for item in body['objects']:
            if item['oid'] not in self.blobs:
                item = {
                    **item,
                    'actions': {
                        'upload': {'href': f'{self.url}/lfs/{item["oid"]}'},
                        'verify': {'href': f'{self.url}/lfs-verify'},
                    },
                }
            objects.append(item)
        return {'transfer': 'basic', 'objects': objects}

    def lfs_put(self, token, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400)
        self.blobs[oid] = body
        return {}

    def lfs_verify(self, token, body):
        if len(self.blobs.get(body['oid'], b'')) != body['size']:
            raise Refused(400)
        return {}

    def commit(self, token, body, name, revision):
        repo = self.repo(name, token)
        self.may_write(token, name)
        lines = [json.loads(line) for line in body.splitlines()]
        branch = unquote(revision)
        head = repo.resolve(branch)
        files = dict(repo.commits[head])
        for line in lines:
            value = line['value']
            if line['key'] == 'header' and value.get('parentCommit') not in (None, head):
                raise Refused(412)
            if line['key'] == 'file':
                data = base64.b64decode(value['content'])
                files[value['path']] = (git_hash(data), data)
            if line['key'] == 'lfsFile':
                files[value['path']] = (value['oid'], self.blobs[value['oid']])
        sha = repo.add(branch, files)
        return {'commitUrl': f'{self.url}/{name}/commit/{sha}', 'commitOid': sha}

    def paths_info(self, token, body, name, revision):
        _, files = self.commit_of(name, revision, token)
        found = []
        for path in body['paths']:
            if path in files:
                etag, data = files[path]
                lfs = {'lfs': {'oid': etag, 'size': len(data), 'pointerSize': 134}} if len(etag) == 64 else {}
                found.append({'type': 'file', 'path': path, 'oid': git_hash(data), 'size': len(data), **lfs})
        return found


def _leaves(value: Any) -> list:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


_NAME = r'([\w.-]+/[\w.-]+)'
ROUTES = [
    (method, re.compile(pattern), name)
    for method, pattern, name in (
        ('POST', '/api/repos/create', 'create'),
        ('DELETE', '/api/repos/delete', 'delete'),
        ('POST', '/api/validate-yaml', 'validate_yaml'),
        ('GET', f'/api/models/{_NAME}', 'info'),
        ('GET', f'/api/models/{_NAME}/revision/(.+)', 'info'),
        ('POST', f'/api/models/{_NAME}/branch/(.+)', 'branch'),
        ('DELETE', f'/api/models/{_NAME}/branch/(.+)', 'delete_branch'),
        ('POST', f'/api/models/{_NAME}/preupload/(.+)', 'preupload'),
        ('POST', f'/api/models/{_NAME}/commit/(.+)', 'commit'),
        ('POST', f'/api/models/{_NAME}/paths-info/(.+)', 'paths_info'),
        ('POST', rf'/{_NAME}\.git/info/lfs/objects/batch', 'lfs_batch'),
        ('PUT', '/lfs/([0-9a-f]{64})', 'lfs_put'),
        ('POST', '/lfs-verify', 'lfs_verify'),
    )
]


class Handler(BaseHTTPRequestHandler):
    """Reads a request, applies the faults, and answers."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    server: Hub

    def log_message(self, *args):
        pass

    def _body(self) -> bytes:
        if 'chunked' not in self.headers.get('Transfer-Encoding', ''):
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def _answer(self, status: int, data: bytes = b'', headers: Optional[dict] = None, cut: Optional[int] = None):
        self.send_response(status)
        for key, value in {'Content-Length': str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(data[:cut])
        if cut is not None:
            self._hang_up()

    def _hang_up(self):
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def _handle(self):
        path = urlsplit(self.path).path
        data = self._body()
        self.server.log.append((self.command, path))
        fault = self.server.fault(self.command, path) or Fault('', '')
        if fault.status:
            return self._answer(fault.status, fault.body, fault.headers)
        if fault.cut == 'before':
            return self._hang_up()
        token = (self.headers.get('Authorization') or '').removeprefix('Bearer ') or None
        try:
            if self.command in ('GET', 'HEAD') and not path.startswith('/api/'):
                return self._file(path, token, fault)
            status, answer, headers = 200, self._route(path, data, token), {}
        except Refused as refused:
            status, answer, headers = refused.status, refused.body, {'X-Error-Code': refused.code}
        if fault.cut == 'after':
            return self._hang_up()
        return self._answer(status, json.dumps(answer).encode(), {'Content-Type': 'application/json', **headers})

    def _route(self, path: str, data: bytes, token: Optional[str]):
        for method, pattern, name in ROUTES:
            if method == self.command and (found := pattern.fullmatch(path)):
                body = data if name in ('commit', 'lfs_put') else self._decoded(data)
                with self.server.lock:
                    return getattr(self.server, name)(token, body, *found.groups())
        raise Refused(404, 'NotFound')

    def _decoded(self, data: bytes):
        if 'form' in self.headers.get('Content-Type', ''):
            return parse_qs(data.decode())
        return json.loads(data) if data else {}

    def _file(self, path: str, token: Optional[str], fault: Fault):
        if path.startswith('/cdn/'):
            self.server.cdn_headers.append(dict(self.headers))
            return self._content(self.server.blobs[path[5:]], {'ETag': f'"{path[5:]}"'}, fault)
        _, org, name, _, revision, file = path.split('/', 5)
        sha, files = self.server.commit_of(f'{org}/{name}', revision, token)
        if file not in files:
            raise Refused(404, 'EntryNotFound')
        etag, data = files[file]
        headers = {'X-Repo-Commit': sha, 'ETag': f'"{etag}"'}
        if len(etag) != 64:
            return self._content(data, headers, fault)
        # Large files are elsewhere, on a host that must not see the token.
        return self._answer(
            302,
            b'',
            {
                **headers,
                'X-Linked-Etag': f'"{etag}"',
                'X-Linked-Size': str(len(data)),
                'Location': f'http://localhost:{self.server.server_port}/cdn/{etag}',
            },
        )

    def _drip(self, data: bytes, headers: dict[str, str], seconds: float):
        self._answer(200, b'', {**headers, 'Content-Length': str(len(data))})
        for byte in data[:20]:
            time.sleep(seconds)
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self._hang_up()

    def _content(self, data: bytes, headers: dict[str, str], fault: Fault):
        if fault.drip:
            return self._drip(data, headers, fault.drip)
        if fault.tamper:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if not (found := re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range') or '')):
            return self._answer(200, data, headers, len(data) // 2 if fault.cut == 'body' else None)
        start = int(found.group(1))
        return self._answer(
            206, data[start:], {**headers, 'Content-Range': f'bytes {start}-{len(data) - 1}/{len(data)}'}
        )

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle
