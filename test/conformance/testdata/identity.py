"""Calls Kiln with the SDK just as code written for AWS does: without arguments."""
import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def code_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
        return "none"
    except ClientError as e:
        return e.response["Error"]["Code"] + ": " + e.response["Error"]["Message"]


def handler(event, context):
    once = Config(retries={"total_max_attempts": 1})
    client = boto3.client("lambda")
    own = {"aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"], "aws_session_token": os.environ["AWS_SESSION_TOKEN"]}
    return {
        "endpoint": client.meta.endpoint_url,
        "functions": [f["FunctionName"] for f in client.list_functions()["Functions"]],
        "foreign": code_of(client.get_function, FunctionName="arn:aws:lambda:us-east-1:111122223333:function:x"),
        "wrong secret": code_of(boto3.client("lambda", aws_secret_access_key="wrong", config=once, **own).list_functions),
        "wrong token": code_of(boto3.client("lambda", aws_access_key_id=own["aws_access_key_id"], aws_session_token="x",
                                            aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"], config=once).list_functions),
        "other key": code_of(boto3.client("lambda", aws_access_key_id="test", aws_secret_access_key="test", config=once).list_functions),
        "sts": code_of(boto3.client("sts", config=once).get_caller_identity),
    }
