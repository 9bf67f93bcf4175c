"""As much of an S3 client as it takes to fill a server quickly: signed PUTs side by side, over kept connections."""
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import multiprocessing
import urllib.parse

THREADS = 8


class Client:
    """One connection; not for several threads."""

    def __init__(self, endpoint, access_key, secret_key):
        self.host = urllib.parse.urlsplit(endpoint).netloc
        self.access_key, self.secret_key = access_key, secret_key
        self.connection = http.client.HTTPConnection(self.host)
        self.day, self.key = None, None

    def _signing_key(self, day):
        if day != self.day:
            key = ("AWS4" + self.secret_key).encode()
            for part in (day, "us-east-1", "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self.day, self.key = day, key
        return self.key

    def request(self, method, path, body=b""):
        path = urllib.parse.quote(path)
        now = datetime.datetime.utcnow().strftime("%Y%m%dT%H%M%SZ")
        fields = {"host": self.host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        signed = ";".join(fields)
        canonical = "\n".join([method, path, "", *(f"{k}:{v}" for k, v in fields.items()), "", signed, "UNSIGNED-PAYLOAD"])
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(now[:8]), text.encode(), "sha256").hex()
        fields["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope},"
                                   f"SignedHeaders={signed},Signature={signature}")
        self.connection.request(method, path, body, fields)
        response = self.connection.getresponse()
        answer = response.read()
        if response.status // 100 != 2 and response.status != 409:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:200]!r}")
        return answer


def _put_some(access, bucket, keys, body):
    def part(mine):
        client = Client(*access)
        for key in mine:
            client.request("PUT", f"/{bucket}/{key}", body)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(part, [keys[i::THREADS] for i in range(THREADS)]))


def put_all(access, bucket, keys, body=b""):
    """Puts `body` under each of `keys`; access is (endpoint, access key, secret key)."""
    Client(*access).request("PUT", f"/{bucket}")
    processes = [multiprocessing.Process(target=_put_some, args=(access, bucket, keys[i::2], body)) for i in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
        if p.exitcode != 0:
            raise RuntimeError(f"filling bucket {bucket} failed")
