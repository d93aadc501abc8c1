"""Calls the named operations of the Lambda API with the least that they need.

A newer botocore knows more operations, and stricter bounds.
"""
import json
import sys

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

ARN = "arn:aws:lambda:eu-west-1:000000000000:"
DURABLE = ARN + "function:f:1/durable-execution/n/i"

# Values that satisfy a pattern, by member.
VALUES = {
    "Action": "lambda:GetLayerVersion",
    "Arn": ARN + "layer:l:1",
    "CapacityProviderOperatorRoleArn": "arn:aws:iam::000000000000:role/r",
    "CodeSigningConfigArn": ARN + "code-signing-config:csc-0123456789abcdefg",
    "DurableExecutionArn": DURABLE,
    "FunctionVersion": "1",
    "Principal": "000000000000",
    "Resource": ARN + "function:f",
    "Role": "arn:aws:iam::000000000000:role/r",
    "UUID": "00000000-0000-0000-0000-000000000000",
    "SigningProfileVersionArns": "arn:aws:signer:eu-west-1:000000000000:/signing-profiles/p",
}


def value(shape, name):
    if shape.type_name == "structure":
        return {m: value(shape.members[m], m) for m in shape.required_members}
    if shape.type_name == "list":
        return [value(shape.member, name)]
    if shape.type_name == "map":
        return {"k": "v"}
    if shape.type_name == "string":
        if shape.enum:
            return shape.enum[0]
        if name == "Qualifier":
            return "1"
        return VALUES.get(name, "x")
    if shape.type_name in ("integer", "long", "double", "float"):
        return int(shape.metadata.get("min", 1)) or 1
    if shape.type_name == "boolean":
        return True
    if shape.type_name == "blob":
        return b"{}"
    raise ValueError(shape.type_name)


client = botocore.session.get_session().create_client(
    "lambda",
    region_name="eu-west-1",
    endpoint_url=sys.argv[1],
    aws_access_key_id="AKID",
    aws_secret_access_key="secret",
    config=Config(retries={"total_max_attempts": 1}),
)
model = client.meta.service_model
answers = {}
for name in sys.argv[2:]:
    shape = model.operation_model(name).input_shape
    params = value(shape, name) if shape else {}
    method = next(k for k, v in client.meta.method_to_api_mapping.items() if v == name)
    try:
        getattr(client, method)(**params)
        answers[name] = {"Status": 200}
    except ClientError as e:
        answers[name] = {
            "Status": e.response["ResponseMetadata"]["HTTPStatusCode"],
            "Code": e.response["Error"]["Code"],
            "Message": e.response["Error"]["Message"],
        }
print(json.dumps(answers))
