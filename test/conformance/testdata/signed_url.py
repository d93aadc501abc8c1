# Calls a function URL as programs do that sign with botocore: argv is the URL, the
# access key, its secret, and a body. Kiln is at 127.0.0.1. Prints status and answer.
import http.client, json, sys
from urllib.parse import urlsplit
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

url, key, secret, body = sys.argv[1:]
at, body = urlsplit(url), body.encode()
headers = {"Content-Type": "application/json", "Host": at.netloc}
request = AWSRequest("POST", url, data=body, headers=headers)
SigV4Auth(Credentials(key, secret), "lambda", "us-east-1").add_auth(request)
connection = http.client.HTTPConnection("127.0.0.1", at.port)
connection.request("POST", at.path + ("?" + at.query if at.query else ""), body=body, headers=dict(request.headers.items()))
response = connection.getresponse()
json.dump({"status": response.status, "kind": response.getheader("x-amzn-errortype"), "body": response.read().decode()}, sys.stdout)
