"""A handler that waits until its function's description is "open".

It asks Kiln through the endpoint, and with the credentials, that every function
has, so it also works where nothing but Kiln can be reached.
"""
import datetime
import hashlib
import hmac
import http.client
import json
import os
import time
import urllib.parse


def get(path, secret=None):
    """A signed GET of the Lambda API; returns the status and the decoded answer."""
    env = os.environ
    url = urllib.parse.urlsplit(env["AWS_ENDPOINT_URL"])
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = "/".join([now[:8], env["AWS_REGION"], "lambda", "aws4_request"])
    names = "host;x-amz-date;x-amz-security-token"
    request = "\n".join(["GET", path, "", "host:" + url.netloc, "x-amz-date:" + now,
                         "x-amz-security-token:" + env["AWS_SESSION_TOKEN"], "", names, hashlib.sha256(b"").hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + (secret or env["AWS_SECRET_ACCESS_KEY"])).encode()
    for part in scope.split("/") + [text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    connection.request("GET", path, headers={
        "X-Amz-Date": now, "X-Amz-Security-Token": env["AWS_SESSION_TOKEN"],
        "Authorization": f"AWS4-HMAC-SHA256 Credential={env['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def handler(event, context):
    while True:
        status, answer = get("/2015-03-31/functions/" + context.function_name + "/configuration")
        if status != 200:
            raise RuntimeError(f"{status} {answer}")
        if answer["Description"] == "open":
            return context.log_stream_name
        time.sleep(0.05)
