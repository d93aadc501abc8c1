#!/usr/bin/env bash
# make run: builds Kiln, starts it, deploys the examples with the AWS CLI, invokes
# each, shows answer and report, and keeps serving until interrupted.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
cd "$root"

need_go
need_aws
# A runtime that cannot be had leaves its example out, and no more.
if (need_node); then need_node; node=yes; else node=; fi
if (need_ruby); then ruby=yes; else ruby=; fi
if (need_java); then java=java21; else java=; fi # whichever JDK is here stands in
if [ -n "$java" ] && (need_dynamodb); then dynamodb=yes; else dynamodb=; fi
say "building …"
make -s build

work=$(mktemp -d)
kiln_pid= dynamodb_pid=
stop() { [ -z "$1" ] || { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }; }
trap 'rm -rf "$work"; stop "$kiln_pid"; stop "$dynamodb_pid"' EXIT
trap 'exit 130' INT TERM
if [ -n "$dynamodb" ]; then
	# Kiln reads the streams of its tables.
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	lib=$cache/dynamodb/$DYNAMODB_VERSION
	java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx256m -cp "$lib/*" \
		com.amazonaws.services.dynamodbv2.local.main.ServerRunner -inMemory -sharedDb -disableTelemetry -port "$port" >"$work/dynamodb.log" 2>&1 &
	dynamodb_pid=$!
	export KILN_ENDPOINTS="${KILN_ENDPOINTS:+$KILN_ENDPOINTS,}dynamodb=http://127.0.0.1:$port"
	if [ -z "${AWS_ACCESS_KEY_ID:-}${AWS_PROFILE:-}" ] && [ ! -f ~/.aws/credentials ]; then
		export AWS_ACCESS_KEY_ID=example AWS_SECRET_ACCESS_KEY=example # it answers whoever signs
	fi
fi
: >"$work/said"
bin/kiln up --any-runtime "$@" > >(tee "$work/said") &
kiln_pid=$!
url= # where it listens is its to say: a flag, a variable or kiln.toml decide
for _ in $(seq 300); do
	kill -0 "$kiln_pid" 2>/dev/null || exit 1 # it said why
	url=$(sed -n 's/^Kiln is ready at \([^ ]*\).*/\1/p' "$work/said")
	[ -z "$url" ] || break
	sleep 0.1
done
[ -n "$url" ] || die "kiln did not say within 30 seconds that it is ready"

export AWS_ENDPOINT_URL=$url AWS_ACCESS_KEY_ID=example AWS_SECRET_ACCESS_KEY=example
export AWS_DEFAULT_REGION=us-east-1 AWS_PAGER='' AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

# deploy NAME RUNTIME HANDLER FILE: deploys one file, or updates what is there.
deploy() {
	local name=$1 runtime=$2 handler=$3 file=$4
	rm -f "$work/code.zip"
	(cd "$(dirname "$file")" && python3 -m zipfile -c "$work/code.zip" "$(basename "$file")")
	say ""
	say "── $name ($runtime)"
	if "$AWS" lambda get-function --function-name "$name" >/dev/null 2>&1; then
		"$AWS" lambda update-function-code --function-name "$name" --zip-file "fileb://$work/code.zip" >/dev/null
		"$AWS" lambda wait function-updated-v2 --function-name "$name"
	else
		"$AWS" lambda create-function --function-name "$name" --runtime "$runtime" --handler "$handler" \
			--role arn:aws:iam::000000000000:role/example --zip-file "fileb://$work/code.zip" >/dev/null
		"$AWS" lambda wait function-active-v2 --function-name "$name"
	fi
}

# example is deploy, and an invocation.
example() {
	deploy "$@"
	local name=$1 log
	log=$("$AWS" lambda invoke --function-name "$name" --payload '{"name":"Kiln"}' --log-type Tail \
		--query LogResult --output text "$work/answer.json")
	cat "$work/answer.json"
	echo
	base64 -d <<<"$log" | grep '^REPORT'
}

if [ -n "$node" ]; then
	example hello-nodejs nodejs22.x index.handler examples/nodejs/index.mjs
else
	say "" && say "── hello-nodejs is left out: Node.js is missing"
fi
example hello-python python3.13 app.handler examples/python/app.py

# A picture that is copied into a bucket calls a function, which makes a thumbnail.
deploy thumbnail python3.13 thumbnail.handler examples/thumbnail/thumbnail.py
"$AWS" lambda update-function-configuration --function-name thumbnail --timeout 30 --memory-size 512 >/dev/null
"$AWS" lambda wait function-updated-v2 --function-name thumbnail
"$AWS" lambda add-permission --function-name thumbnail --statement-id s3 --action lambda:InvokeFunction \
	--principal s3.amazonaws.com --source-arn arn:aws:s3:::pictures >/dev/null 2>&1 || true # it is there from the last time
"$AWS" s3 mb s3://pictures >/dev/null 2>&1 || true
"$AWS" s3api put-bucket-notification-configuration --bucket pictures --notification-configuration "$(cat <<EOF
{"LambdaFunctionConfigurations": [{"LambdaFunctionArn": "$("$AWS" lambda get-function --function-name thumbnail --query Configuration.FunctionArn --output text)",
  "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}}}]}
EOF
)"
PYTHONDONTWRITEBYTECODE=1 python3 - "$work/picture.png" <<'EOF'
import sys
sys.path.insert(0, "examples/thumbnail")
from thumbnail import write_png
rows = [bytes(v for x in range(480) for v in (x % 256, y % 256, x * y % 256)) for y in range(320)]
open(sys.argv[1], "wb").write(write_png(480, 320, 3, rows))
EOF
"$AWS" s3 cp "$work/picture.png" s3://pictures/in/ --no-progress
for _ in $(seq 100); do
	"$AWS" s3 ls s3://pictures/thumbnails/picture.png && break
	sleep 0.2
done
say "" && say "building examples/go …"
(cd examples/go && CGO_ENABLED=0 go build -ldflags='-s -w' -o "$work/bootstrap" .)
example hello-go provided.al2023 bootstrap "$work/bootstrap"

if [ -n "$ruby" ]; then
	example hello-ruby ruby3.4 app.handler examples/ruby/app.rb
else
	say "" && say "── hello-ruby is left out: Ruby is missing"
fi
# The class is compiled against AWS's interfaces, which come with the runtime client.
data=${KILN_DATA:-kiln-data} before=
for a in "$@"; do
	[ "$before" != --data ] || data=$a
	case $a in --data=*) data=${a#*=} ;; esac
	before=$a
done
core() { ls "$data"/runtimes/bundle-"$java"-*/lib/aws-lambda-java-core-*.jar 2>/dev/null; }
if [ -n "$java" ] && bin/kiln runtime add "$java" >/dev/null && javac -cp "$(core)" -d "$work" examples/java/Hello.java; then
	example hello-java "$java" Hello "$work/Hello.class"
else
	say "" && say "── hello-java is left out: a JDK, Maven, or AWS's runtime client is missing"
fi

# An update of an item calls the function with the item as it was and as it is now. The
# port is Kiln's, which forwards to DynamoDB Local.
if [ -n "$dynamodb" ]; then
	deploy hello-dynamodb python3.13 app.handler examples/dynamodb/app.py
	for mapping in $("$AWS" lambda list-event-source-mappings --function-name hello-dynamodb --query 'EventSourceMappings[].UUID' --output text); do
		"$AWS" lambda delete-event-source-mapping --uuid "$mapping" >/dev/null # of a table of an earlier run
	done
	stream=$("$AWS" dynamodb create-table --table-name visitors --billing-mode PAY_PER_REQUEST \
		--attribute-definitions AttributeName=name,AttributeType=S --key-schema AttributeName=name,KeyType=HASH \
		--stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES --query TableDescription.LatestStreamArn --output text)
	mapping=$("$AWS" lambda create-event-source-mapping --function-name hello-dynamodb --event-source-arn "$stream" --starting-position TRIM_HORIZON --query UUID --output text)
	for visits in 1 2; do
		"$AWS" dynamodb put-item --table-name visitors --item '{"name":{"S":"you"},"visits":{"N":"'$visits'"}}'
	done
	seen=
	for _ in $(seq 100); do
		seen=$("$AWS" logs filter-log-events --log-group-name /aws/lambda/hello-dynamodb --filter-pattern '"MODIFY"' --query 'events[-1].message' --output text 2>/dev/null || true) # no log before the first call
		case $seen in MODIFY*) break ;; esac
		sleep 0.2
	done
	case $seen in MODIFY*) echo "$seen" ;; *) die "the function was not called: $("$AWS" lambda get-event-source-mapping --uuid "$mapping" --query LastProcessingResult --output text)" ;; esac
else
	say "" && say "── hello-dynamodb is left out: a JDK, Maven, or DynamoDB Local is missing"
fi

cat >&2 <<EOF

Kiln keeps serving at $AWS_ENDPOINT_URL; stop it with Ctrl-C. In another terminal:

  export AWS_ENDPOINT_URL=$AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_DEFAULT_REGION=us-east-1
  $root/bin/kiln functions
  $root/bin/kiln invoke hello-python -p '{"name":"you"}' --tail
  $root/bin/kiln logs hello-python --follow
EOF
wait "$kiln_pid"
