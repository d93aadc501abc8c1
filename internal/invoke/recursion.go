package invoke

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"kiln/internal/lambda"
)

const (
	// maxLoops is how often a function runs in one chain of invocations before the
	// chain is taken for a loop: about as often as on AWS.
	// https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
	maxLoops = 16
	// maxLineage bounds the functions of a chain that are counted; the oldest go first.
	maxLineage = 16
	lineageKey = "Lineage="
)

// extend counts a function in the lineage of a trace header, which AWS's SDKs pass on
// when a function calls a service: 0 the first time it occurs.
func extend(trace string, arn lambda.FunctionARN) string {
	id := lineageID(arn)
	parts, chain := split(trace)
	for i, link := range chain {
		if count, found := strings.CutPrefix(link, id+":"); found {
			n, _ := strconv.Atoi(count) // what is no number begins anew
			chain[i] = id + ":" + strconv.Itoa(max(0, n)+1)
			id = ""
		}
	}
	if id != "" {
		chain = append(chain, id+":0")
	}
	chain = chain[max(0, len(chain)-maxLineage):]
	return strings.Join(append(parts, lineageKey+strings.Join(chain, "|")), ";")
}

// loops is how often the function has run before in the chain that the header tells of.
func loops(trace string, arn lambda.FunctionARN) int {
	_, chain := split(trace)
	for _, link := range chain {
		if count, found := strings.CutPrefix(link, lineageID(arn)+":"); found {
			n, _ := strconv.Atoi(count)
			return n
		}
	}
	return 0
}

// split takes the lineage out of a trace header. SDKs in Python and Go pass it on with
// its bars escaped.
func split(trace string) (parts, chain []string) {
	for part := range strings.SplitSeq(trace, ";") {
		if lineage, found := strings.CutPrefix(part, lineageKey); found {
			chain = strings.Split(bars.Replace(lineage), "|")
		} else if part != "" {
			parts = append(parts, part)
		}
	}
	return parts, chain
}

var bars = strings.NewReplacer("%7C", "|", "%7c", "|")

// lineageID stands for a function, whatever its qualifier.
func lineageID(arn lambda.FunctionARN) string {
	sum := sha256.Sum256([]byte(arn.Unqualified().String()))
	return hex.EncodeToString(sum[:4])
}

// Recursive is what an invocation gets that would go on with a loop.
const Recursive = "RecursiveInvocationException"

func recursive() *lambda.Error {
	return &lambda.Error{
		Code: Recursive, Status: http.StatusBadRequest,
		Message: "Lambda has detected your function being invoked in a recursive loop with other AWS resources and stopped your function's invocation.",
	}
}
