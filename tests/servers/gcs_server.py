#!/usr/bin/python3
"""Stands in for Google Cloud Storage and for the services that its credentials come from, and is strict about their protocols.

  gcs_server.py DIR PORT     keeps everything in memory; writes key files to DIR; serves until it is killed

The JSON API (buckets, objects, multipart and resumable uploads, compose, rewrite), reads of the XML API, the OAuth token endpoint
(a JWT's RS256 signature is verified), the security token service, generateAccessToken and the metadata server. What a request has
that the API does not know, or a digest that is not that of the bytes, is refused as the service refuses it.

POST /control sets, as a form:
  lifetime=SECONDS     of tokens that are handed out from now on (default 3600)
  uses=N               of a token that is handed out from now on; then it is refused (0: no limit)
  revoke=TOKEN         it ends now; "all" of them do
and of one bucket, so that tests side by side do not meet, bucket=NAME and
  cut=BYTES            bodies of resumable uploads break off behind so many bytes,
  cuts=N               the next N
  lose=1               the next answer to one is not sent: the bytes are kept
  fail=STATUS          the next request for an object of it gets this status
  public=1             everybody may read it
GET /log gives the requests so far, one "METHOD path status" a line; DELETE /log forgets them.
"""
import base64
import bisect
import gzip
import hashlib
import http.server
import json
import os
import re
import secrets
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate

import crcmod.predefined
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

crc32c_of = crcmod.predefined.mkCrcFun("crc-32c")
CHUNK = 256 * 1024  # what of a resumable upload is kept, but for its end
COMMON = {"alt", "fields", "prettyPrint", "userProject", "quotaUser", "key"}
PRECONDITIONS = {"ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch"}
OWNER, OTHER = "leat@test-project.iam.gserviceaccount.com", "other@other-project.iam.gserviceaccount.com"


class Refused(Exception):
    def __init__(self, status, message, reason="invalid", headers=None):
        self.status, self.message, self.reason, self.headers = status, message, reason, headers or {}


def b64(data):
    return base64.b64encode(data).decode()


def rfc3339(t):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ".%03dZ" % (t % 1 * 1000)


class Object:
    def __init__(self, bucket, name, data, resource, composed=0):
        self.bucket, self.name, self.data = bucket, name, data
        self.generation = STATE.next_generation()
        self.metageneration = 1
        self.created = self.updated = time.time()
        self.crc32c = b64(crc32c_of(data).to_bytes(4, "big"))
        self.md5 = None if composed else b64(hashlib.md5(data).digest())
        self.components = composed
        self.content_type = resource.get("contentType", "application/octet-stream")
        self.content_encoding = resource.get("contentEncoding", "")
        self.metadata = dict(resource.get("metadata") or {})

    def resource(self):
        out = {"kind": "storage#object", "id": f"{self.bucket}/{self.name}/{self.generation}", "name": self.name, "bucket": self.bucket,
               "generation": str(self.generation), "metageneration": str(self.metageneration), "contentType": self.content_type,
               "storageClass": "STANDARD", "size": str(len(self.data)), "crc32c": self.crc32c,
               "etag": b64(b"%d/%d" % (self.generation, self.metageneration)), "timeCreated": rfc3339(self.created),
               "updated": rfc3339(self.updated), "selfLink": f"{STATE.url}/storage/v1/b/{self.bucket}/o/{quote(self.name)}",
               "mediaLink": f"{STATE.url}/download/storage/v1/b/{self.bucket}/o/{quote(self.name)}?generation={self.generation}&alt=media"}
        if self.md5:
            out["md5Hash"] = self.md5
        if self.components:
            out["componentCount"] = self.components
        if self.metadata:
            out["metadata"] = self.metadata
        if self.content_encoding:
            out["contentEncoding"] = self.content_encoding
        return out


class Bucket:
    def __init__(self, name, owner, project, resource):
        self.name, self.owner, self.project = name, owner, project
        self.created = time.time()
        self.location = resource.get("location", "US").upper()
        self.storage_class = resource.get("storageClass", "STANDARD")
        self.versioned = bool((resource.get("versioning") or {}).get("enabled"))
        self.requester_pays = bool((resource.get("billing") or {}).get("requesterPays"))
        self.public = self.cut = self.cuts = self.lose = self.fail = 0
        self.live, self.old = {}, {}
        self.keys = None  # the live names as bytes, in order; None: not known

    def resource(self):
        return {"kind": "storage#bucket", "id": self.name, "name": self.name, "projectNumber": "1", "location": self.location,
                "storageClass": self.storage_class, "timeCreated": rfc3339(self.created), "updated": rfc3339(self.created),
                "metageneration": "1", "etag": "CAE="}

    def sorted_keys(self):
        if self.keys is None:
            self.keys = sorted(name.encode() for name in self.live)
        return self.keys

    def put(self, obj):
        before = self.live.get(obj.name)
        if before is not None and self.versioned:
            self.old[obj.name, before.generation] = before
        if before is None:
            self.keys = None
        self.live[obj.name] = obj

    def remove(self, name, generation):
        before = self.live.get(name)
        if generation is not None and (before is None or before.generation != generation):
            if self.old.pop((name, generation), None) is None:
                raise not_found(self.name, name)
            return
        if before is None:
            raise not_found(self.name, name)
        if self.versioned and generation is None:
            self.old[name, before.generation] = before
        del self.live[name]
        self.keys = None

    def get(self, name, generation=None):
        obj = self.live.get(name)
        if generation is not None and (obj is None or obj.generation != generation):
            obj = self.old.get((name, generation))
        if obj is None:
            raise not_found(self.name, name)
        return obj


class State:
    def __init__(self):
        self.lock = threading.RLock()
        self.lifetime, self.uses = 3600, 0
        self.log, self.buckets, self.sessions, self.rewrites = [], {}, {}, {}
        self.tokens = {}   # token -> [principal, end, uses left or None]
        self.keys = {}     # e-mail -> (key id, public key)
        self.last_generation = 0
        self.url = ""

    def next_generation(self):
        self.last_generation = max(self.last_generation + 1, int(time.time() * 1e6))
        return self.last_generation

    def new_token(self, principal):
        token = "ya29." + secrets.token_urlsafe(60)
        self.tokens[token] = [principal, time.time() + self.lifetime, self.uses or None]
        return token


STATE = State()


def quote(name):
    return urllib.parse.quote(name, safe="")


def not_found(bucket, name):
    return Refused(404, f"No such object: {bucket}/{name}", "notFound")


def check_name(name):
    if not name or len(name.encode()) > 1024 or "\r" in name or "\n" in name or name in (".", ".."):
        raise Refused(400, "Invalid argument.", "invalid")


def number(query, name):
    if name not in query:
        return None
    if not re.fullmatch(r"\d{1,19}", query[name]) or int(query[name]) >= 1 << 63:
        raise Refused(400, f"Invalid value for {name}: {query[name]}", "invalidParameter")
    return int(query[name])


def check_preconditions(query, obj, prefix="if"):
    generation, meta = (obj.generation, obj.metageneration) if obj else (0, 0)
    wanted = [number(query, prefix + "GenerationMatch"), number(query, prefix + "MetagenerationMatch")]
    unwanted = number(query, prefix + "GenerationNotMatch")
    if (wanted[0] is not None and wanted[0] != generation) or (wanted[1] is not None and wanted[1] != meta) or \
            (unwanted is not None and unwanted == generation):
        raise Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = 120

    def log_message(self, *_):
        pass

    # ------------------------------------------------------------ answers

    def reply(self, status, body=b"", kind="application/json; charset=UTF-8", headers=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        if isinstance(body, str):
            body = body.encode()
        with STATE.lock:
            STATE.log.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        self.send_header("X-GUploader-UploadID", "x")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def refuse(self, e, xml):
        if xml:
            code = {404: "NoSuchBucket" if "bucket" in e.message else "NoSuchKey", 403: "AccessDenied", 401: "AuthenticationRequired",
                    412: "PreconditionFailed", 416: "InvalidRange"}.get(e.status, "InvalidArgument")
            text = e.message.replace("&", "&amp;").replace("<", "&lt;")
            self.reply(e.status, f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>Refused.</Message>"
                       f"<Details>{text}</Details></Error>", "application/xml; charset=UTF-8", e.headers)
        else:
            self.reply(e.status, {"error": {"code": e.status, "message": e.message, "errors": [
                {"message": e.message, "domain": "global", "reason": e.reason}]}}, headers=e.headers)

    # ------------------------------------------------------------ dispatch

    def serve(self):
        xml = False
        try:
            url = urllib.parse.urlsplit(self.path)
            path = url.path
            try:
                pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True, strict_parsing=True, errors="strict") if url.query else []
            except (ValueError, UnicodeDecodeError):
                raise Refused(400, "Malformed query.")
            query = dict(pairs)
            if len(query) != len(pairs) and path != "/control":
                raise Refused(400, "A parameter is given twice.", "invalidParameter")
            xml = not re.match(r"/(storage|upload|download|token|sts|iam|computeMetadata|control|log|subject)(/|$)", path)
            if path.startswith("/upload/storage/v1/b/") and "upload_id" in query:
                return self.session(query)  # (reads its body by itself)
            length = self.headers.get("Content-Length") or "0"
            if not length.isdigit():
                raise Refused(400, "Malformed Content-Length.")
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                self.body = self.read_chunked()
            else:
                self.body = self.rfile.read(int(length))
                if len(self.body) != int(length):
                    self.close_connection = True
                    return
            if path == "/control":
                return self.control()
            if path == "/log":
                with STATE.lock:
                    text = "\n".join(STATE.log)
                    if self.command == "DELETE":
                        STATE.log.clear()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
                return self.wfile.flush()
            if path == "/token" or path.startswith("/sts/") or path.startswith("/iam/") or path.startswith("/computeMetadata/") or \
                    path == "/subject":
                return self.identity(path, query)
            self.user_project = query.get("userProject") or self.headers.get("x-goog-user-project") or ""
            with STATE.lock:
                self.principal = self.authenticate(xml)
                if xml:
                    found = self.xml(path, query)
                else:
                    found = self.api(path, query)
            # (a large body is not sent under the lock)
            if found:
                self.media(*found)
        except Refused as e:
            self.refuse(e, xml)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = serve

    def read_chunked(self):
        out = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            piece = self.rfile.read(size + 2)
            if size == 0:
                return out
            out += piece[:-2]

    def control(self):
        form = dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))
        with STATE.lock:
            for name, value in form.items():
                if name == "revoke":
                    STATE.tokens.pop(value, None)
                    if value == "all":
                        STATE.tokens.clear()
                elif "bucket" in form and name != "bucket":
                    setattr(STATE.buckets[form["bucket"]], name, int(value))
                elif name != "bucket":
                    setattr(STATE, name, int(value))
        self.reply(200)

    # ------------------------------------------------------------ who asks

    def identity(self, path, query):
        content = (self.headers.get("Content-Type") or "").split(";")[0]

        def oauth(status, error, why):
            self.reply(status, {"error": error, "error_description": why})

        if path.startswith("/computeMetadata/"):
            if self.headers.get("Metadata-Flavor") != "Google" or self.headers.get("X-Forwarded-For"):
                return self.reply(403, "<html>Missing Metadata-Flavor:Google header.</html>", "text/html", {"Metadata-Flavor": "Google"})
            if path != "/computeMetadata/v1/instance/service-accounts/default/token" or set(query) - {"scopes"}:
                return self.reply(404, "not found", "text/html", {"Metadata-Flavor": "Google"})
            with STATE.lock:
                token = STATE.new_token(OWNER)
            return self.reply(200, {"access_token": token, "expires_in": STATE.lifetime, "token_type": "Bearer"},
                              headers={"Metadata-Flavor": "Google"})
        if path == "/subject":
            if self.headers.get("X-Who") != "me":
                return self.reply(403, "no")
            return self.reply(200, {"id_token": "subject-secret"})
        if self.command != "POST":
            return self.reply(405, "not a POST")
        if path.startswith("/iam/"):
            if content != "application/json" or not re.fullmatch(
                    r"/iam/v1/projects/-/serviceAccounts/[^/:]+:generateAccessToken", path):
                return self.reply(404, {"error": {"code": 404, "message": "Not found.", "status": "NOT_FOUND"}})
            request = json.loads(self.body)
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if set(request) - {"scope", "lifetime", "delegates"} or not re.fullmatch(r"\d+s", request["lifetime"]):
                return self.reply(400, {"error": {"code": 400, "message": "Invalid JSON payload.", "status": "INVALID_ARGUMENT"}})
            with STATE.lock:
                if given not in STATE.tokens or OTHER in path:
                    return self.reply(403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message":
                                      "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."}})
                token = STATE.new_token(urllib.parse.unquote(path.split("/")[-1].split(":")[0]))
            return self.reply(200, {"accessToken": token, "expireTime": rfc3339(time.time() + STATE.lifetime)})
        if content != "application/x-www-form-urlencoded":
            return oauth(400, "invalid_request", "Bad Request")
        form = dict(urllib.parse.parse_qsl(self.body.decode(), strict_parsing=True))
        kind = form.get("grant_type", "").removeprefix("urn:ietf:params:oauth:grant-type:")
        if path.startswith("/sts/"):
            if kind != "token-exchange" or form.get("requested_token_type") != "urn:ietf:params:oauth:token-type:access_token" or \
                    not form.get("audience", "").startswith("//iam.googleapis.com/") or not form.get("scope"):
                return oauth(400, "invalid_request", "Invalid value for a field.")
            if form.get("subject_token") != "subject-secret":
                return oauth(400, "invalid_grant", "The given credential is rejected by the attribute condition.")
            with STATE.lock:
                token = STATE.new_token(OWNER)
            return self.reply(200, {"access_token": token, "issued_token_type": form["requested_token_type"], "token_type": "Bearer",
                                    "expires_in": STATE.lifetime})
        if kind == "refresh_token":
            if (form.get("client_id"), form.get("client_secret")) != ("client-id", "client-secret"):
                return oauth(401, "invalid_client", "The OAuth client was not found.")
            if form.get("refresh_token") != "refresh-secret":
                return oauth(400, "invalid_grant", "Token has been expired or revoked.")
            principal = OWNER
        elif kind == "jwt-bearer":
            try:
                principal = self.check_assertion(form.get("assertion", ""))
            except (ValueError, KeyError, InvalidSignature) as e:
                return oauth(400, "invalid_grant", str(e) or "Invalid JWT Signature.")
        else:
            return oauth(400, "unsupported_grant_type", "Invalid grant_type")
        with STATE.lock:
            token = STATE.new_token(principal)
        self.reply(200, {"access_token": token, "expires_in": STATE.lifetime, "token_type": "Bearer"})

    def check_assertion(self, assertion):
        def decode(text):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
                raise ValueError("Invalid JWT: not base64url.")
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

        head, claims, signature = assertion.split(".")
        header, claim = json.loads(decode(head)), json.loads(decode(claims))
        if header.get("alg") != "RS256" or header.get("typ") != "JWT":
            raise ValueError("Invalid JWT: the algorithm is not RS256.")
        if claim["iss"] not in STATE.keys:
            raise ValueError("Invalid grant: account not found")
        key_id, key = STATE.keys[claim["iss"]]
        if header.get("kid") != key_id:
            raise ValueError("Invalid JWT Signature.")
        key.verify(decode(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        now = time.time()
        if claim["aud"] != STATE.url + "/token":
            raise ValueError("Invalid JWT: Failed audience check.")
        if not now - 300 < claim["iat"] < now + 300 or not claim["iat"] < claim["exp"] <= claim["iat"] + 3600:
            raise ValueError("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                             "Check your iat and exp values in the JWT claim.")
        if not all(re.fullmatch(r"https://www\.googleapis\.com/auth/(cloud-platform|devstorage\.\w+)", s)
                   for s in claim["scope"].split()):
            raise ValueError("Invalid OAuth scope or ID token audience provided.")
        return claim["iss"]

    def authenticate(self, xml):
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = STATE.tokens.get(header.removeprefix("Bearer ") if header.startswith("Bearer ") else "")
        if token is None or token[1] <= time.time() or token[2] == 0:
            raise Refused(401, "Invalid Credentials", "authError")
        if token[2] is not None:
            token[2] -= 1
        return token[0]

    def bucket(self, name, permission):
        bucket = STATE.buckets.get(name)
        if bucket is None:
            raise Refused(404, "The specified bucket does not exist.", "notFound")
        fail, bucket.fail = bucket.fail, 0
        if fail:
            raise Refused(fail, "As the test wants it.", "backendError")
        if bucket.requester_pays and not self.user_project:
            raise Refused(400, "Bucket is a requester pays bucket but no user project provided.", "required")
        reads = permission in ("storage.objects.get", "storage.objects.list")
        if bucket.owner == self.principal or (bucket.public and reads):
            return bucket
        who = self.principal or "Anonymous caller"
        what = "object" if ".objects." in permission and not permission.endswith("list") else "bucket"
        raise Refused(403 if self.principal else 401, f"{who} does not have {permission} access to the Google Cloud Storage {what}. "
                      f"Permission '{permission}' denied on resource (or it may not exist).",
                      "forbidden" if self.principal else "required")

    # ------------------------------------------------------------ the JSON API

    def only(self, query, *known):
        unknown = set(query) - set(known) - COMMON
        if unknown:
            raise Refused(400, f"Unknown name \"{sorted(unknown)[0]}\": Cannot bind query parameter.", "invalidParameter")

    def document(self, *known):
        if not (self.headers.get("Content-Type") or "").startswith("application/json"):
            raise Refused(400, "Parse Error: not JSON", "parseError")
        try:
            out = json.loads(self.body or b"{}")
        except ValueError:
            raise Refused(400, "Parse Error", "parseError")
        if out is None:  # (Go's client sends "null" for no document)
            return {}
        if not isinstance(out, dict) or (known and set(out) - set(known)):
            raise Refused(400, f"Unknown name in the document: {sorted(set(out) - set(known))}", "invalid")
        return out

    def api(self, path, query):
        parts = [urllib.parse.unquote(p, errors="strict") for p in path.split("/")[1:]]
        if parts[0] in ("upload", "download"):
            kind = parts.pop(0)
        else:
            kind = ""
        if parts[:3] != ["storage", "v1", "b"]:
            raise Refused(404, "Not Found", "notFound")
        rest = parts[3:]
        method = self.command
        if kind == "upload":
            if method != "POST" or len(rest) != 2 or rest[1] != "o":
                raise Refused(404, "Not Found", "notFound")
            return self.upload(rest[0], query)
        if kind == "download" and query.get("alt") != "media":
            raise Refused(400, "Download without alt=media", "invalid")
        if not rest:
            if method == "GET":
                self.only(query, "project", "maxResults", "pageToken", "prefix", "projection")
                return self.list_buckets(query)
            if method == "POST":
                self.only(query, "project", "projection", "predefinedAcl", "predefinedDefaultObjectAcl")
                return self.make_bucket(query)
        elif len(rest) == 1:
            if method == "GET":
                self.only(query, "projection", *PRECONDITIONS)
                return self.reply(200, self.bucket(rest[0], "storage.buckets.get").resource())
            if method == "DELETE":
                self.only(query, *PRECONDITIONS)
                bucket = self.bucket(rest[0], "storage.buckets.delete")
                if bucket.live or bucket.old:
                    raise Refused(409, "The bucket you tried to delete is not empty.", "conflict")
                del STATE.buckets[rest[0]]
                return self.reply(204)
        elif rest[1] != "o":
            pass
        elif len(rest) == 2 and method == "GET":
            self.only(query, "prefix", "delimiter", "startOffset", "endOffset", "pageToken", "maxResults", "versions", "projection",
                      "includeTrailingDelimiter")
            return self.list(self.bucket(rest[0], "storage.objects.list"), query)
        elif len(rest) == 3:
            return self.object(rest[0], rest[2], query)
        elif len(rest) == 4 and rest[3] == "compose" and method == "POST":
            self.only(query, "ifGenerationMatch", "ifMetagenerationMatch", "destinationPredefinedAcl")
            return self.compose(rest[0], rest[2], query)
        elif len(rest) == 8 and rest[3] == "rewriteTo" and rest[4] == "b" and rest[6] == "o" and method == "POST":
            self.only(query, "rewriteToken", "sourceGeneration", "ifSourceGenerationMatch", "ifSourceGenerationNotMatch",
                      "ifSourceMetagenerationMatch", "maxBytesRewrittenPerCall", "destinationPredefinedAcl", "projection", *PRECONDITIONS)
            return self.rewrite(rest[0], rest[2], rest[5], rest[7], query)
        raise Refused(404, "Not Found", "notFound")

    def list_buckets(self, query):
        if not self.principal:
            raise Refused(401, "Anonymous caller does not have storage.buckets.list access to the Google Cloud project.", "required")
        if "project" not in query:
            raise Refused(400, "Required parameter: project", "required")
        names = sorted(b.name for b in STATE.buckets.values() if b.owner == self.principal and b.project == query["project"] and
                       b.name > query.get("pageToken", "") and b.name.startswith(query.get("prefix", "")))
        most = min(number(query, "maxResults") or 1000, 1000)
        out = {"kind": "storage#buckets", "items": [STATE.buckets[n].resource() for n in names[:most]]}
        if len(names) > most:
            out["nextPageToken"] = names[most - 1]
        self.reply(200, out)

    def make_bucket(self, query):
        if not self.principal:
            raise Refused(401, "Anonymous caller does not have storage.buckets.create access to the Google Cloud project.", "required")
        if "project" not in query:
            raise Refused(400, "Required parameter: project", "required")
        resource = self.document("name", "location", "storageClass", "iamConfiguration", "versioning", "billing", "acl", "kind")
        name = resource.get("name", "")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", name) or "goog" in name:
            raise Refused(400, f"Invalid bucket name: '{name}'", "invalid")
        if name in STATE.buckets:
            mine = STATE.buckets[name].owner == self.principal
            raise Refused(409, "Your previous request to create the named bucket succeeded and you already own it." if mine else
                          "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
                          "Please select a different name and try again.", "conflict")
        STATE.buckets[name] = Bucket(name, self.principal, query["project"], resource)
        self.reply(200, STATE.buckets[name].resource())

    def list(self, bucket, query):
        prefix, delimiter = query.get("prefix", "").encode(), query.get("delimiter", "").encode()
        start = max(query.get("startOffset", "").encode(), prefix)
        end = query.get("endOffset", "").encode()
        most = number(query, "maxResults")
        if most == 0:
            raise Refused(400, "Invalid value for maxResults", "invalidParameter")
        most = min(most or 1000, 1000)
        after = None
        if "pageToken" in query:
            try:
                after = base64.urlsafe_b64decode(query["pageToken"])
            except ValueError:
                raise Refused(400, "Invalid page token", "invalid")
        keys, items, prefixes, last, more = bucket.sorted_keys(), [], [], None, False
        i = bisect.bisect_left(keys, start)
        while i < len(keys) and keys[i].startswith(prefix) and not (end and keys[i] >= end):
            key = keys[i]
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            entry = key[:cut + len(delimiter)] if cut >= 0 else key
            if after is None or entry > after:
                if len(items) + len(prefixes) == most:
                    more = True
                    break
                if cut >= 0:
                    prefixes.append(entry.decode())
                else:
                    items.append(bucket.live[key.decode()].resource())
                last = entry
            i = i + 1 if cut < 0 else bisect.bisect_left(keys, entry[:-1] + bytes([entry[-1] + 1]))
        out = {"kind": "storage#objects"}
        if items:
            out["items"] = items
        if prefixes:
            out["prefixes"] = prefixes
        if more:
            out["nextPageToken"] = base64.urlsafe_b64encode(last).decode()
        if "fields" in query:
            out = self.chosen(out, query["fields"])
        self.reply(200, out)

    def chosen(self, document, fields):
        """A partial answer: "nextPageToken,items(name,size)"."""
        if not re.fullmatch(r"[\w,()/*]+", fields):
            raise Refused(400, f"Invalid field selection {fields}", "invalidParameter")
        out = {}
        for name, inner in re.findall(r"(\w+)(?:\(([\w,]+)\))?", fields):
            if name not in document:
                continue
            out[name] = [{k: v for k, v in item.items() if k in inner.split(",")} for item in document[name]] if inner else document[name]
        return out

    def object(self, bucket_name, name, query):
        self.only(query, "generation", "projection", *PRECONDITIONS)
        generation = number(query, "generation")
        if self.command in ("GET", "HEAD"):
            obj = self.bucket(bucket_name, "storage.objects.get").get(name, generation)
            check_preconditions(query, obj)
            if query.get("alt") == "media":
                return obj, False
            return self.reply(200, obj.resource())
        if self.command == "DELETE":
            bucket = self.bucket(bucket_name, "storage.objects.delete")
            check_preconditions(query, bucket.live.get(name))
            bucket.remove(name, generation)
            return self.reply(204)
        if self.command in ("PATCH", "PUT"):
            obj = self.bucket(bucket_name, "storage.objects.update").get(name, generation)
            check_preconditions(query, obj)
            resource = self.document()
            if self.command == "PUT":
                obj.metadata = dict(resource.get("metadata") or {})
            for key, value in (resource.get("metadata") or {}).items():
                if value is None:
                    obj.metadata.pop(key, None)
                else:
                    obj.metadata[key] = value
            obj.metageneration += 1
            obj.updated = time.time()
            return self.reply(200, obj.resource())
        raise Refused(405, "Method not allowed", "httpMethodNotAllowed")

    def compose(self, bucket_name, name, query):
        bucket = self.bucket(bucket_name, "storage.objects.create")
        check_name(name)
        request = self.document("kind", "sourceObjects", "destination")
        sources = request.get("sourceObjects") or []
        if not 1 <= len(sources) <= 32:
            raise Refused(400, "The number of source components provided (%d) exceeds the maximum (32)" % len(sources), "invalid")
        data, count = [], 0
        for source in sources:
            if set(source) - {"name", "generation", "objectPreconditions"}:
                raise Refused(400, "Unknown name in sourceObjects", "invalid")
            obj = bucket.get(source["name"], int(source["generation"]) if "generation" in source else None)
            check_preconditions(source.get("objectPreconditions") or {}, obj)
            data.append(obj.data)
            count += max(obj.components, 1)
        check_preconditions(query, bucket.live.get(name))
        obj = Object(bucket.name, name, b"".join(data), request.get("destination") or {}, count)
        bucket.put(obj)
        self.reply(200, obj.resource())

    def rewrite(self, source_bucket, source, bucket_name, name, query):
        obj = self.bucket(source_bucket, "storage.objects.get").get(source, number(query, "sourceGeneration"))
        bucket = self.bucket(bucket_name, "storage.objects.create")
        check_name(name)
        check_preconditions(query, obj, "ifSource")
        check_preconditions(query, bucket.live.get(name))
        what = (source_bucket, source, obj.generation, bucket_name, name)
        size = len(obj.data)
        # Large ones take several requests.
        done, token = 0, query.get("rewriteToken")
        if token is not None:
            if token not in STATE.rewrites or STATE.rewrites[token][0] != what:
                raise Refused(400, "Invalid rewrite token", "invalid")
            done = STATE.rewrites[token][1]
        done = min(size, done + (4 << 20))
        out = {"kind": "storage#rewriteResponse", "totalBytesRewritten": str(done), "objectSize": str(size), "done": done == size}
        if done < size:
            out["rewriteToken"] = secrets.token_urlsafe(40) + "+/="
            STATE.rewrites[out["rewriteToken"]] = (what, done)
        else:
            resource = {"contentType": obj.content_type, "contentEncoding": obj.content_encoding, "metadata": obj.metadata}
            given = self.document() if self.body else {}
            if given:
                resource = given
            copy = Object(bucket.name, name, obj.data, resource, obj.components)
            bucket.put(copy)
            out["resource"] = copy.resource()
        self.reply(200, out)

    # ------------------------------------------------------------ uploads

    def upload(self, bucket_name, query):
        self.only(query, "uploadType", "name", "projection", "predefinedAcl", "contentEncoding", *PRECONDITIONS)
        bucket = self.bucket(bucket_name, "storage.objects.create")
        content = self.headers.get("Content-Type") or ""
        kind = query.get("uploadType")
        if kind == "multipart":
            match = re.fullmatch(r"multipart/related; *boundary=\"?([^\";]+)\"?", content)
            if not match:
                raise Refused(400, "Missing multipart boundary", "badRequest")
            boundary = match.group(1).encode()
            pieces = (b"\r\n" + self.body).split(b"\r\n--" + boundary)
            if len(pieces) != 4 or pieces[0] or not pieces[3].startswith(b"--"):
                raise Refused(400, "Malformed multipart body.", "badRequest")
            heads = [p.split(b"\r\n\r\n", 1) for p in pieces[1:3]]
            if any(len(h) != 2 for h in heads) or b"application/json" not in heads[0][0].lower():
                raise Refused(400, "Malformed multipart body.", "badRequest")
            self.body, data = heads[0][1], heads[1][1]
            resource = json.loads(self.body)
            return self.reply(200, self.made(bucket, query, resource, data))
        if kind == "media":
            return self.reply(200, self.made(bucket, query, {"contentType": content}, self.body))
        if kind != "resumable":
            raise Refused(400, "uploadType is missing", "invalidParameter")
        if self.body:
            resource = self.document()
        else:
            resource = {}
        name = resource.get("name") or query.get("name") or ""
        check_name(name)
        check_preconditions(query, bucket.live.get(name))
        total = self.headers.get("X-Upload-Content-Length")
        session = secrets.token_urlsafe(40)
        STATE.sessions[session] = {"bucket": bucket_name, "query": query, "resource": resource, "data": bytearray(),
                                   "total": int(total) if total else None, "done": None, "lock": threading.Lock()}
        where = f"http://{self.headers['Host']}/upload/storage/v1/b/{quote(bucket_name)}/o?uploadType=resumable&upload_id={session}"
        self.reply(200, b"", headers={"Location": where, "X-GUploader-UploadID": session})

    def made(self, bucket, query, resource, data):
        name = resource.get("name") or query.get("name") or ""
        check_name(name)
        data = bytes(data)
        crc32c, md5 = resource.get("crc32c"), resource.get("md5Hash")
        given = self.headers.get("x-goog-hash") or ""
        for part in given.split(","):
            if part.startswith("crc32c="):
                crc32c = part[7:]
            if part.startswith("md5="):
                md5 = part[4:]
        real = b64(crc32c_of(data).to_bytes(4, "big"))
        if crc32c is not None and crc32c != real:
            raise Refused(400, f"Provided CRC32C \"{crc32c}\" doesn't match calculated CRC32C \"{real}\".", "invalid")
        if md5 is not None and md5 != b64(hashlib.md5(data).digest()):
            raise Refused(400, f"Provided MD5 hash \"{md5}\" doesn't match calculated MD5 hash.", "invalid")
        check_preconditions(query, bucket.live.get(name))
        obj = Object(bucket.name, name, data, resource)
        bucket.put(obj)
        return obj.resource()

    def session(self, query):
        length = int(self.headers.get("Content-Length") or 0)
        with STATE.lock:
            session = STATE.sessions.get(query["upload_id"])
            cut, lose = 0, 0
            bucket = STATE.buckets.get(session["bucket"]) if session else None
            if length and bucket:
                cut = bucket.cut if bucket.cuts else 0
                bucket.cuts = max(bucket.cuts - 1, 0)
                lose, bucket.lose = bucket.lose, 0
        # (Go's client sends bodies by POST)
        if self.command not in ("PUT", "POST", "DELETE") or session is None:
            self.rfile.read(length)
            return self.refuse(Refused(404 if session is None else 405, "No such upload session", "notFound"), False)
        if self.command == "DELETE":
            with STATE.lock:
                STATE.sessions.pop(query["upload_id"], None)
            return self.reply(499)
        with session["lock"]:
            data, total = session["data"], session["total"]
            match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers.get("Content-Range") or "bytes 0-%d/%d" % (
                max(length, 1) - 1, length)) if length or self.headers.get("Content-Range") else None
            try:
                if match is None and length == 0 and not self.headers.get("Content-Range"):
                    first, last, size = 0, -1, 0
                elif match is None:
                    raise Refused(400, "Invalid Content-Range", "badRequest")
                else:
                    size = None if match.group(3) == "*" else int(match.group(3))
                    first, last = (None, None) if match.group(1) is None else (int(match.group(1)), int(match.group(2)))
                if size is not None and total is not None and size != total:
                    raise Refused(400, "The size is not that of X-Upload-Content-Length", "badRequest")
                if first is None and length:
                    raise Refused(400, "A body without a range", "badRequest")
                if session["done"] is not None:
                    self.rfile.read(length)
                    return self.reply(200, session["done"])
                if first is None and size is not None and len(data) == size:
                    return self.finish_session(session, lose)
                if first is None:
                    return self.incomplete(data)
                if last - first + 1 != length:
                    raise Refused(400, "The range is not as long as the body", "badRequest")
                if first > len(data):
                    raise Refused(400, f"The upload goes on at {len(data)}, not at {first}", "badRequest")
                known = len(data) - first  # what comes again is passed over
                whole = size is not None and last + 1 == size
                if not whole and length % CHUNK:
                    raise Refused(400, "A chunk is no multiple of 256 KiB", "badRequest")
            except Refused as e:
                self.rfile.read(length)
                return self.refuse(e, False)
            got = self.rfile.read(min(length, cut) if cut else length)
            data += got[known:] if len(got) == length else got[known:len(got) // CHUNK * CHUNK]
            if len(got) < length:
                with STATE.lock:
                    STATE.log.append(f"PUT {self.path} cut")
                self.close_connection = True
                return None
            if not whole:
                return self.incomplete(data)
            return self.finish_session(session, lose)

    def finish_session(self, session, lose):
        try:
            with STATE.lock:
                bucket = STATE.buckets.get(session["bucket"])
                if bucket is None:
                    raise Refused(404, "The specified bucket does not exist.", "notFound")
                session["done"] = self.made(bucket, session["query"], session["resource"], session["data"])
                session["data"] = bytearray()
        except Refused as e:
            return self.refuse(e, False)
        if lose:
            with STATE.lock:
                STATE.log.append(f"PUT {self.path} lost")
            self.close_connection = True
            return None
        return self.reply(200, session["done"])

    def incomplete(self, data):
        headers = {"Range": f"bytes=0-{len(data) - 1}"} if data else {}
        if (self.headers.get("X-GUploader-No-308") or "").lower() == "yes":
            return self.reply(200, headers={**headers, "X-Http-Status-Code-Override": "308"})
        self.reply(308, headers=headers)

    # ------------------------------------------------------------ reads

    def xml(self, path, query):
        bucket, _, name = path[1:].partition("/")
        if self.command not in ("GET", "HEAD") or not name:
            raise Refused(400, "Only reads of objects are here.")
        unknown = set(query) - {"generation"}
        if unknown:
            raise Refused(400, f"Invalid query parameter(s): {sorted(unknown)}")
        name = urllib.parse.unquote(name, errors="strict")
        obj = self.bucket(urllib.parse.unquote(bucket), "storage.objects.get").get(name, number(query, "generation"))
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != obj.generation:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")
        return obj, True

    def media(self, obj, xml):
        data, status = obj.data, 200
        encoded = obj.content_encoding == "gzip"
        as_stored = "gzip" in (self.headers.get("Accept-Encoding") or "")
        headers = {"x-goog-generation": obj.generation, "x-goog-metageneration": obj.metageneration, "x-goog-storage-class": "STANDARD",
                   "x-goog-stored-content-encoding": obj.content_encoding or "identity", "x-goog-stored-content-length": len(obj.data),
                   "Last-Modified": formatdate(obj.updated, usegmt=True), "Accept-Ranges": "bytes",
                   "x-goog-hash": "crc32c=" + obj.crc32c + (",md5=" + obj.md5 if obj.md5 else "")}
        headers["ETag"] = '"%s"' % (base64.b64decode(obj.md5).hex() if obj.md5 else "-" + b64(b"%d" % obj.generation))
        if xml:
            for name, value in obj.metadata.items():
                headers["x-goog-meta-" + name] = value
        if encoded and not as_stored:
            data = gzip.decompress(data)  # and there are no ranges then
        else:
            if encoded:
                headers["Content-Encoding"] = "gzip"
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if match:
                first = int(match.group(1))
                last = min(int(match.group(2)) if match.group(2) else len(data) - 1, len(data) - 1)
                if first >= len(data):
                    raise Refused(416, "The requested range cannot be satisfied.", headers={"Content-Range": f"bytes */{len(data)}"})
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                data, status = memoryview(data)[first:last + 1], 206
        self.reply(status, data, obj.content_type, headers)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # (a client may go when it likes)
            super().handle_error(request, client_address)


def write_json(path, document):
    with open(path, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
        json.dump(document, f)


def main():
    folder, port = sys.argv[1], int(sys.argv[2])
    STATE.url = f"http://127.0.0.1:{port}"
    for name, email in (("owner", OWNER), ("other", OTHER)):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key_id = secrets.token_hex(20)
        STATE.keys[email] = (key_id, key.public_key())
        write_json(f"{folder}/{name}.json", {
            "type": "service_account", "project_id": email.split("@")[1].split(".")[0], "private_key_id": key_id, "private_key": pem.decode(),
            "client_email": email, "client_id": "1", "auth_uri": STATE.url + "/auth", "token_uri": STATE.url + "/token"})
    write_json(f"{folder}/user.json", {"type": "authorized_user", "client_id": "client-id", "client_secret": "client-secret",
                                       "refresh_token": "refresh-secret", "token_uri": STATE.url + "/token"})
    external = {"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": STATE.url + "/sts/v1/token"}
    with open(f"{folder}/subject", "w") as f:
        f.write("subject-secret\n")
    write_json(f"{folder}/external-file.json", {**external, "credential_source": {"file": f"{folder}/subject"}})
    write_json(f"{folder}/external-url.json", {**external, "service_account_impersonation_url":
               f"{STATE.url}/iam/v1/projects/-/serviceAccounts/{OWNER}:generateAccessToken", "credential_source": {
                   "url": STATE.url + "/subject", "headers": {"X-Who": "me"}, "format": {
                       "type": "json", "subject_token_field_name": "id_token"}}})
    server = Server(("127.0.0.1", port), Handler)
    server.serve_forever()


main()
