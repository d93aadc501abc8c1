"""Carries out the requests of the test, a line of JSON each, with boto3."""
import base64
import datetime
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore import xform_name

clients = {}


def client(request):
    key = (request["endpoint"], request["key"], request["secret"], request["region"], request["service"])
    if key not in clients:
        clients[key] = boto3.client(
            key[4], endpoint_url=key[0], aws_access_key_id=key[1], aws_secret_access_key=key[2], region_name=key[3],
            config=Config(retries={"total_max_attempts": 1}))
    return clients[key]


def decode(value):
    if isinstance(value, dict):
        if list(value) == ["$bytes"]:
            return base64.b64decode(value["$bytes"])
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(v) for v in value]
    return value


def encode(value):
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items() if k != "ResponseMetadata"}
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return value


def carry_out(request):
    c = client(request)
    if request["do"] == "call":
        return encode(getattr(c, xform_name(request["name"]))(**decode(request["in"])))
    if request["do"] == "wait":
        c.get_waiter(xform_name(request["name"])).wait(FunctionName=request["in"]["FunctionName"], WaiterConfig={"Delay": 1})
        return {}
    if request["do"] == "paginate":
        pages = c.get_paginator(xform_name(request["name"])).paginate(PaginationConfig={"PageSize": request["in"]["PageSize"]}, **request["in"].get("Of") or {})
        return {"Sizes": [len(page[request["in"]["List"]]) for page in pages]}
    pages = c.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": request["in"]["PageSize"]})
    return {"Pages": [[f["FunctionName"] for f in page["Functions"]] for page in pages]}


for line in sys.stdin:
    try:
        answer = {"out": carry_out(json.loads(line))}
    except ClientError as e:
        answer = {"error": {"Class": type(e).__name__, "Code": e.response["Error"]["Code"], "Message": e.response["Error"]["Message"],
                            "Status": e.response["ResponseMetadata"]["HTTPStatusCode"],
                            "Body": {k: v for k, v in e.response.items() if isinstance(v, str)}}}
    except Exception as e:  # a test that goes wrong must say so, not hang
        answer = {"error": {"Class": type(e).__name__, "Code": "", "Message": str(e), "Status": 0, "Body": {}}}
    print(json.dumps(answer), flush=True)
