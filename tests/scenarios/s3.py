#!/usr/bin/python3
"""An S3 client that is not ours, of the standard library alone, for scenarios. Access: S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY.

    s3.py mb BUCKET                     s3.py rb BUCKET (with all that is in it)
    s3.py put BUCKET KEY FILE           s3.py rm BUCKET KEY
    s3.py tree BUCKET PREFIX DIR        every file below DIR at PREFIX + its path
    s3.py keys BUCKET FILE              an object for every line of FILE ("key" or "key<TAB>text")
    s3.py head BUCKET KEY               etag and, where there is one, version
    s3.py uploads BUCKET                uploads under way that have parts, a line each
    s3.py policy BUCKET JSON            s3.py versioning BUCKET
    s3.py role NAME                     a role that everybody may assume and that may do everything
    s3.py assume NAME                   AWS_NAME=value lines of a session in that role (STS)
"""
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import sys
import threading
import urllib.parse
import xml.etree.ElementTree as ElementTree

local = threading.local()


def request(method, path, query=(), body=b"", headers={}, service="s3"):
    endpoint = urllib.parse.urlsplit(os.environ["S3_ENDPOINT"])
    if not hasattr(local, "connection"):
        local.connection = http.client.HTTPConnection(endpoint.netloc)
    path = urllib.parse.quote(path, safe="/~")
    query = "&".join(f"{urllib.parse.quote(k, safe='~')}={urllib.parse.quote(v, safe='~')}" for k, v in sorted(query))
    now = datetime.datetime.utcnow().strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    fields = {"host": endpoint.netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
    signed = ";".join(fields)
    canonical = "\n".join([method, path, query, *(f"{k}:{v}" for k, v in fields.items()), "", signed, digest])
    scope = f"{now[:8]}/us-east-1/{service}/aws4_request"
    key = ("AWS4" + os.environ["S3_SECRET_KEY"]).encode()
    for part in (now[:8], "us-east-1", service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    fields["authorization"] = (f"AWS4-HMAC-SHA256 Credential={os.environ['S3_ACCESS_KEY']}/{scope},SignedHeaders={signed},"
                               f"Signature={hmac.digest(key, text.encode(), 'sha256').hex()}")
    fields.update(headers)
    local.connection.request(method, path + ("?" + query if query else ""), body, fields)
    answer = local.connection.getresponse()
    data = answer.read()
    if answer.status // 100 != 2:
        sys.exit(f"s3.py: {method} {path}: {answer.status} {data[:300]!r}")
    return answer, data


def many(work, items):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, items))


def listed(bucket):
    after = ""
    while True:
        query = [("versions", ""), ("encoding-type", "url")] + ([("key-marker", after)] if after else [])
        # (Ceph encodes all keys but those of the markers, which need not be XML then)
        text = re.sub(rb"<(\w*KeyMarker)>.*?</\1>", b"", request("GET", f"/{bucket}", query)[1], flags=re.S)
        root = ElementTree.fromstring(text)
        space = re.match(r"\{.*\}", root.tag).group(0) if root.tag[0] == "{" else ""
        for entry in root:
            if entry.tag in (space + "Version", space + "DeleteMarker"):
                after = urllib.parse.unquote_plus(entry.find(space + "Key").text)
                yield after, entry.find(space + "VersionId").text
        if root.findtext(space + "IsTruncated") != "true":
            return


def files_below(directory):
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            yield os.path.relpath(path, directory), path


def put_file(bucket, key, path):
    with open(path, "rb") as file:
        return request("PUT", f"/{bucket}/{key}", body=file.read())[0]


def policy(action, field, value):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [action], field: value}]}, separators=(",", ":"))


def form(service, **fields):
    fields["Version"] = {"iam": "2010-05-08", "sts": "2011-06-15"}[service]
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return request("POST", "/", body=urllib.parse.urlencode(fields).encode(), headers=headers, service=service)[1].decode()


def main(what, *args):
    if what == "mb":
        request("PUT", f"/{args[0]}")
    elif what == "rb":
        many(lambda o: request("DELETE", f"/{args[0]}/{o[0]}", [("versionId", o[1])] if o[1] != "null" else ()), list(listed(args[0])))
        request("DELETE", f"/{args[0]}")
    elif what == "put":
        put_file(*args)
    elif what == "rm":
        request("DELETE", f"/{args[0]}/{args[1]}")
    elif what == "tree":
        bucket, prefix, directory = args
        many(lambda f: put_file(bucket, prefix + f[0], f[1]), list(files_below(directory)))
    elif what == "keys":
        with open(args[1]) as file:
            lines = [line.rstrip("\n").partition("\t") for line in file]
        many(lambda l: request("PUT", f"/{args[0]}/{l[0]}", body=l[2].encode()), lines)
    elif what == "head":
        answer, _ = request("HEAD", f"/{args[0]}/{args[1]}")
        print(answer.headers["ETag"].strip('"'), answer.headers.get("x-amz-version-id", ""))
    elif what == "uploads":
        root = ElementTree.fromstring(request("GET", f"/{args[0]}", [("uploads", "")])[1])
        space = re.match(r"\{.*\}", root.tag).group(0) if root.tag[0] == "{" else ""
        for upload in root.findall(space + "Upload"):
            key, name = upload.findtext(space + "Key"), upload.findtext(space + "UploadId")
            parts = request("GET", f"/{args[0]}/{key}", [("uploadId", name)])[1]
            if b"<Part>" in parts:
                print(key)
    elif what == "policy":
        request("PUT", f"/{args[0]}", [("policy", "")], args[1].encode())
    elif what == "versioning":
        request("PUT", f"/{args[0]}", [("versioning", "")],
                b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
    elif what == "role":
        form("iam", Action="CreateRole", RoleName=args[0], Path="/", AssumeRolePolicyDocument=policy("sts:AssumeRole", "Principal", {"AWS": ["arn:aws:iam:::user/leat"]}))
        form("iam", Action="PutRolePolicy", RoleName=args[0], PolicyName="all", PolicyDocument=policy("s3:*", "Resource", "arn:aws:s3:::*"))
    elif what == "assume":
        text = form("sts", Action="AssumeRole", RoleArn=f"arn:aws:iam:::role/{args[0]}", RoleSessionName="scenario", DurationSeconds="900")
        for tag, name in (("AccessKeyId", "ACCESS_KEY_ID"), ("SecretAccessKey", "SECRET_ACCESS_KEY"), ("SessionToken", "SESSION_TOKEN")):
            print(f"AWS_{name}=" + re.search(f"<{tag}>(.*?)</{tag}>", text).group(1))
    else:
        sys.exit(__doc__)


main(*sys.argv[1:])
