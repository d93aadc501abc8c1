package kiln

// Bash is a package for the provided runtimes whose bootstrap is a bash script:
// small, started in milliseconds, in need of nothing but bash. answer is run for
// each event, which is in $event, its request id in $id, and sets $answer. What
// it prints is the function's log.
func Bash(answer string) []byte {
	return Zip(map[string]string{"bootstrap!": Bootstrap(answer)})
}

// Bootstrap is the script of Bash.
func Bootstrap(answer string) string { return bashHead + answer + bashTail }

const bashHead = `#!/bin/bash
LC_ALL=C
host=${AWS_LAMBDA_RUNTIME_API%:*} port=${AWS_LAMBDA_RUNTIME_API#*:}
api=/2018-06-01/runtime
exec 9<>/dev/tcp/$host/$port
# headers reads those of an answer: its length, and the request id.
headers() {
	length=0
	while IFS= read -r line <&9 && line=${line%$'\r'} && [ -n "$line" ]; do
		case ${line,,} in
		lambda-runtime-aws-request-id:*) id=${line#*: } ;;
		content-length:*) length=${line#*: } ;;
		esac
	done
}
body() { event=; [ "$length" = 0 ] || IFS= read -r -N "$length" event <&9; }
post() {
	printf 'POST %s/invocation/%s/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s' "$api" "$id" "$1" "$host" "${#2}" "$2" >&9
	headers
	body
}
while printf 'GET %s/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n' "$api" "$host" >&9; do
	headers
	body
	answer=null
`

const bashTail = `
	post response "$answer"
done
`
