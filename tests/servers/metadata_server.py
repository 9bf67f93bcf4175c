#!/usr/bin/python3
"""Stands in for the services that AWS's credentials come from, and is strict about their protocols:
IMDSv2, the container endpoint of ECS and EKS, and STS (AssumeRole signed, AssumeRoleWithWebIdentity not).

  metadata_server.py [--port N]     prints "PORT n", serves until stdin ends

Every answer holds a new access key (AKIA-<service>-<serial>), so that a test sees each refresh. POST /control sets, as a form:
  lifetime=SECONDS    of what is handed out from now on (default 3600)
  role=NAME           of the instance; empty: none
  imds=on|off|silent|busy  off: 403, as where IMDS is disabled; silent: accepts and never answers; busy: 503
  container_token=T   the Authorization that the container endpoint wants
  web_token=T         the identity token that STS takes
  fail=STATUS         the next request (but to /control) gets this status
GET /log gives the requests so far, one "METHOD path status reason" a line.

A request that breaks its protocol gets the status that AWS would give, and its reason is in the log.
"""
import argparse
import hashlib
import hmac
import http.server
import json
import re
import secrets
import sys
import threading
import time
import urllib.parse

SOURCE_KEYS = {  # who may assume roles
    "AKIDSOURCE": ("source-secret", None),
    "AKIDSESSION": ("session-secret", "session-token"),
}


class State:
    def __init__(self):
        self.lock = threading.Lock()
        self.lifetime, self.role, self.imds = 3600, "training", "on"
        self.container_token, self.web_token, self.fail = "container-secret", "identity-secret", 0
        self.serial, self.log = 0, []
        self.imds_tokens = {}  # token -> end
        self.handed_out = dict(SOURCE_KEYS)

    def new_credentials(self, service):
        with self.lock:
            self.serial += 1
            key = f"AKIA-{service}-{self.serial}"
            secret, token = f"secret-{secrets.token_hex(8)}", f"token/+={secrets.token_hex(8)}"
            self.handed_out[key] = (secret, token)
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime))
            return key, secret, token, end


STATE = State()


class Refused(Exception):
    def __init__(self, status, reason, code="InvalidRequest"):
        self.status, self.reason, self.code = status, reason, code


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def hmac256(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", kind="text/plain", reason="ok"):
        body = body.encode() if isinstance(body, str) else body
        with STATE.lock:
            STATE.log.append(f"{self.command} {self.path} {status} {reason}")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.urlsplit(self.path).path
        try:
            if path == "/control":
                self.control(body)
            elif path == "/log":
                with STATE.lock:
                    text = "\n".join(STATE.log)
                self.send_response(200)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            else:
                with STATE.lock:
                    fail, STATE.fail = STATE.fail, 0
                if fail:
                    raise Refused(fail, "as the test wants it")
                if path.startswith("/latest/"):
                    self.imds(path)
                elif path in ("/v2/credentials/task", "/pod/credentials"):
                    self.container()
                elif path == "/sts/" or path == "/sts" or path == "/":
                    self.sts(path, body)
                else:
                    raise Refused(404, "no such path")
        except Refused as e:
            if path.startswith("/latest/"):
                self.reply(e.status, f"<html>{e.reason}</html>", "text/html", e.reason)
            elif "/credentials" in path:
                self.reply(e.status, json.dumps({"code": e.code, "message": e.reason}), "application/json", e.reason)
            else:
                self.reply(e.status, "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>"
                           f"<Type>Sender</Type><Code>{e.code}</Code><Message>{e.reason}</Message></Error>"
                           "<RequestId>1</RequestId></ErrorResponse>", "text/xml", e.reason)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

    def control(self, body):
        form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        with STATE.lock:
            for name, value in form.items():
                setattr(STATE, name, int(value) if name in ("lifetime", "fail") else value)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def imds(self, path):
        if STATE.imds == "silent":
            time.sleep(30)
            raise Refused(500, "silent")
        if STATE.imds == "busy":
            raise Refused(503, "busy")
        if STATE.imds == "off":
            raise Refused(403, "IMDS is disabled")
        if self.headers.get("X-Forwarded-For"):
            raise Refused(403, "forwarded")
        if path == "/latest/api/token":
            if self.command != "PUT":
                raise Refused(405, "a token is asked for with PUT")
            ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") or ""
            if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
                raise Refused(400, "the token's time to live is missing or out of range")
            token = secrets.token_urlsafe(40) + "=="
            with STATE.lock:
                STATE.imds_tokens[token] = time.time() + int(ttl)
            return self.reply(200, token)
        if self.command != "GET":
            raise Refused(405, "not a GET")
        token = self.headers.get("X-aws-ec2-metadata-token")
        if STATE.imds_tokens.get(token, 0) < time.time():
            raise Refused(401, "no token, or not one of ours")
        base = "/latest/meta-data/iam/security-credentials/"
        if not path.startswith(base) or not STATE.role:
            raise Refused(404, "not found")
        name = urllib.parse.unquote(path[len(base):])
        if name == "":
            return self.reply(200, STATE.role)
        if name != STATE.role:
            raise Refused(404, "no such role")
        key, secret, session, end = STATE.new_credentials("imds")
        self.reply(200, json.dumps({"Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
                                    "AccessKeyId": key, "SecretAccessKey": secret, "Token": session, "Expiration": end}))

    def container(self):
        if self.command != "GET":
            raise Refused(405, "not a GET")
        if STATE.container_token and self.headers.get("Authorization") != STATE.container_token:
            raise Refused(401, "the authorization is missing or wrong", "AccessDenied")
        key, secret, session, end = STATE.new_credentials("container")
        self.reply(200, json.dumps({"RoleArn": "arn:aws:iam::1:role/task", "AccessKeyId": key, "SecretAccessKey": secret,
                                    "Token": session, "Expiration": end}), "application/json")

    def check_signature(self, path, body):
        """As AWS does it: from what arrived, not from what the client says that it signed."""
        match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
                             r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})", self.headers.get("Authorization") or "")
        if not match:
            raise Refused(403, "no AWS4 signature", "MissingAuthenticationToken")
        key, day, region, service, names, signature = match.groups()
        stamp = self.headers.get("X-Amz-Date") or ""
        if service != "sts" or not stamp.startswith(day):
            raise Refused(403, "the credential scope is wrong", "SignatureDoesNotMatch")
        if key not in STATE.handed_out:
            raise Refused(403, "the key does not exist", "InvalidClientTokenId")
        secret, token = STATE.handed_out[key]
        if self.headers.get("X-Amz-Security-Token") != token:
            raise Refused(403, "the session token is wrong", "InvalidClientTokenId")
        sent = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(sent - time.time()) > 900:
            raise Refused(403, "the signature has expired", "SignatureDoesNotMatch")
        names = names.split(";")
        required = {"host", "x-amz-date", "content-type"} | ({"x-amz-security-token"} if token else set())
        if names != sorted(names) or not required <= set(names):
            raise Refused(403, "headers that must be signed are not", "SignatureDoesNotMatch")
        lines = "".join(f"{n}:{' '.join(self.headers[n].split())}\n" for n in names)
        request = f"{self.command}\n{path}\n\n{lines}\n{';'.join(names)}\n{sha256(body)}"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{day}/{region}/{service}/aws4_request\n{sha256(request.encode())}"
        signer = ("AWS4" + secret).encode()
        for part in (day, region, service, "aws4_request"):
            signer = hmac256(signer, part)
        if hmac256(signer, to_sign).hex() != signature:
            raise Refused(403, "the signature does not match", "SignatureDoesNotMatch")

    def sts(self, path, body):
        if self.command != "POST":
            raise Refused(405, "not a POST")
        if not (self.headers.get("Content-Type") or "").startswith("application/x-www-form-urlencoded"):
            raise Refused(400, "not a form", "InvalidAction")
        form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
        if form.get("Version") != "2011-06-15":
            raise Refused(400, "the version is wrong", "NoSuchVersion")
        action = form.get("Action")
        if not re.fullmatch(r"arn:aws:iam::\d+:role/[\w+=,.@/-]+", form.get("RoleArn", "")):
            raise Refused(400, "RoleArn is not one", "ValidationError")
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", form.get("RoleSessionName", "")):
            raise Refused(400, "RoleSessionName is not one", "ValidationError")
        if not 900 <= int(form.get("DurationSeconds", "3600")) <= 43200:
            raise Refused(400, "DurationSeconds is out of range", "ValidationError")
        if action == "AssumeRole":
            self.check_signature(path, body)
            if form["RoleArn"].endswith("/external") and form.get("ExternalId") != "external & secret":
                raise Refused(403, "not allowed without its external id", "AccessDenied")
            if form["RoleArn"].endswith("/forbidden"):
                raise Refused(403, "not authorized to perform sts:AssumeRole", "AccessDenied")
        elif action == "AssumeRoleWithWebIdentity":
            if self.headers.get("Authorization"):
                raise Refused(400, "this action is not signed", "ValidationError")
            if form.get("WebIdentityToken") != STATE.web_token:
                raise Refused(400, "the token is not valid", "InvalidIdentityToken")
        else:
            raise Refused(400, "no such action", "InvalidAction")
        key, secret, session, end = STATE.new_credentials("sts")
        self.reply(200, f"""<?xml version="1.0" encoding="UTF-8"?>
<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>
<AssumedRoleUser><Arn>{form["RoleArn"]}/{form["RoleSessionName"]}</Arn><AssumedRoleId>A:B</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{session}</SessionToken><Expiration>{end}</Expiration></Credentials></{action}Result>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>""", "text/xml")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    server = Server(("127.0.0.1", parser.parse_args().port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"PORT {server.server_port}", flush=True)
    sys.stdin.read()


main()
