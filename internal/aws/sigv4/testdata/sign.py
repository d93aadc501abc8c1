"""Signs requests with botocore and prints them, one JSON object a line."""
import json
import sys

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

for line in sys.stdin:
    case = json.loads(line)
    request = AWSRequest(
        method=case["method"],
        url="http://localhost:9000" + case["target"],
        data=case["body"],
        headers=case["headers"] or {},
    )
    credentials = Credentials("AKIDEXAMPLE", "secret", case.get("token") or None)
    if case["presign"]:
        SigV4QueryAuth(credentials, "lambda", "eu-west-1", expires=60).add_auth(request)
    else:
        SigV4Auth(credentials, "lambda", "eu-west-1").add_auth(request)
    target = request.url[len("http://localhost:9000"):]
    print(json.dumps({"target": target, "headers": dict(request.headers.items())}))
