"""Calls a function with boto3 and prints each event of its answer as it comes, a line of JSON each."""
import hashlib
import json
import sys

import boto3
from botocore.exceptions import ClientError


def show(**event):
    print(json.dumps(event), flush=True)


name, payload, log = sys.argv[1:]
size, digest = 0, hashlib.sha256()
try:
    answer = boto3.client("lambda").invoke_with_response_stream(FunctionName=name, Payload=payload, LogType=log)
    show(Head=True, Status=answer["StatusCode"], Version=answer["ExecutedVersion"],
         Type=answer["ResponseMetadata"]["HTTPHeaders"].get("x-amzn-remapped-content-type", ""))
    for event in answer["EventStream"]:
        if "PayloadChunk" in event:
            piece = event["PayloadChunk"]["Payload"]
            size += len(piece)
            digest.update(piece)
            show(Text=piece[:20].decode("latin1"))
        else:
            show(Complete=True, Size=size, SHA256=digest.hexdigest(), **event["InvokeComplete"])
except ClientError as e:
    show(Refused=e.response["Error"]["Code"])
