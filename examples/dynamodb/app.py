import json


def handler(event, context):
    for record in event.get("Records", []):
        change = record["dynamodb"]
        print(record["eventName"], "from", json.dumps(change.get("OldImage")), "to", json.dumps(change.get("NewImage")))
