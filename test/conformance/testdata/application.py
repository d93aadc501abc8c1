# An application that knows one endpoint for everything: a queue, a table and functions.
# It is a function, and a program outside: argv[1] is the name of its queue and table.
import json, sys
import boto3
from botocore.exceptions import ClientError


def run(name):
    sqs, table = boto3.client("sqs"), boto3.client("dynamodb")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="ü" * 100_000)
    got = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)["Messages"][0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
    table.create_table(TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}], StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})
    table.put_item(TableName=name, Item={"k": {"S": "x"}, "v": {"S": got["Body"]}})
    item = table.get_item(TableName=name, Key={"k": {"S": "x"}})["Item"]
    answer = {"size": len(item["v"]["S"]), "url": url, "functions": [f["FunctionName"] for f in boto3.client("lambda").list_functions()["Functions"]]}
    answer["streams"] = len(boto3.client("dynamodbstreams").list_streams(TableName=name)["Streams"])
    for service, call in {"kinesis": "list_streams", "ses": "list_identities"}.items():
        try:
            getattr(boto3.client(service), call)()
        except ClientError as e:
            answer[service] = e.response["Error"]
    return answer


def handler(event, context):
    return run(event["name"])


if __name__ == "__main__":
    json.dump(run(sys.argv[1]), sys.stdout)
