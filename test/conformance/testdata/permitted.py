"""Does what its role may, or may not, do."""
import os

import boto3
from botocore.exceptions import ClientError


def tried(call, **kwargs):
    try:
        call(**kwargs)
        return "done"
    except ClientError as e:
        return e.response["Error"]["Code"] + ": " + e.response["Error"]["Message"]


def handler(event, context):
    if event.get("idle"):
        return None
    sts = boto3.client("sts")
    answer = {"who": sts.get_caller_identity()["Arn"], "invoke": tried(boto3.client("lambda").invoke, FunctionName="target", Payload=b'{"idle":true}')}
    if event.get("assume"):
        c = sts.assume_role(RoleArn=event["assume"], RoleSessionName="within")["Credentials"]
        other = boto3.client("lambda", aws_access_key_id=c["AccessKeyId"], aws_secret_access_key=c["SecretAccessKey"], aws_session_token=c["SessionToken"])
        answer["as another"] = tried(other.invoke, FunctionName="target", Payload=b'{"idle":true}')
    return answer
