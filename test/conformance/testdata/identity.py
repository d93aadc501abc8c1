"""Calls Kiln with the SDK just as code written for AWS does: without arguments."""
import os
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def code_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
        return "none"
    except ClientError as e:
        return e.response["Error"]["Code"] + ": " + e.response["Error"]["Message"]


def log():
    """Logs as a program does that brings its own logger: to a group of its own, and to the function's."""
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="/own")
    logs.create_log_stream(logGroupName="/own", logStreamName="s")
    for group, stream in [("/own", "s"), (os.environ["AWS_LAMBDA_LOG_GROUP_NAME"], os.environ["AWS_LAMBDA_LOG_STREAM_NAME"])]:
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[{"timestamp": int(time.time() * 1000), "message": "put by the function"}])
    return [code_of(logs.list_tags_for_resource, resourceArn="arn:aws:logs:us-east-1:111122223333:log-group:/own")] + [
        e["message"] for e in logs.filter_log_events(logGroupName="/own")["events"]]


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
        "logs": log(),
        "sts": boto3.client("sts").get_caller_identity()["Arn"],
        "sns": code_of(boto3.client("sns", config=once).list_topics),
    }
