"""Deploys an image with boto3, as a pipeline does, and prints what came of it."""
import json, sys
import boto3

name, uri, role = sys.argv[1:]
client = boto3.client("lambda")
created = client.create_function(
    FunctionName=name, Role=role, PackageType="Image", Code={"ImageUri": uri},
    ImageConfig={"Command": ["app.handler", "second"]}, Environment={"Variables": {"FROM": "function"}},
)
client.get_waiter("function_active_v2").wait(FunctionName=name)
shown = client.get_function(FunctionName=name)
answer = client.invoke(FunctionName=name, Payload=json.dumps({}))
updated = client.update_function_configuration(FunctionName=name, ImageConfig={})
client.get_waiter("function_updated_v2").wait(FunctionName=name)
again = client.invoke(FunctionName=name, Payload=json.dumps({}))
json.dump({
    "created": created["State"],
    "package": created["PackageType"],
    "absent": [k for k in ("Runtime", "Handler") if k in shown["Configuration"]],
    "size": shown["Configuration"]["CodeSize"],
    "sha256": shown["Configuration"]["CodeSha256"],
    "settings": shown["Configuration"]["ImageConfigResponse"]["ImageConfig"],
    "code": shown["Code"],
    "answer": json.loads(answer["Payload"].read()),
    "without": "ImageConfigResponse" in updated,
    "again": json.loads(again["Payload"].read()),
}, sys.stdout)
