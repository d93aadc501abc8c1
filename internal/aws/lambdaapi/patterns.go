package lambdaapi

import (
	"regexp"
	"strings"
)

// The four patterns of the model that look around, which RE2 cannot, as functions.
// The generator refuses a fifth.

var arn = regexp.MustCompile(`^arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}(-gov)?-[a-z]+-\d{1}|ddblocal)?:(\d{12})?:(.*)$`)

// matchARN is the model's pattern, and takes the region that DynamoDB Local writes into
// its ARNs, and alone knows them by.
func matchARN(s string) bool { return arn.MatchString(s) }

// matchAlias is (?!^[0-9]+$)([a-zA-Z0-9-_]+): a name that is not a number.
func matchAlias(s string) bool { return allOf(s, nameChar) && !allOf(s, digit) }

// matchFunctionURLQualifier is ((?!^\d+$)^[0-9a-zA-Z-_]+$).
func matchFunctionURLQualifier(s string) bool { return matchAlias(s) }

// matchS3Bucket is [0-9A-Za-z\.\-_]*(?<!\.): no dot at the end.
func matchS3Bucket(s string) bool {
	return (s == "" || allOf(s, func(c byte) bool { return nameChar(c) || c == '.' })) && !strings.HasSuffix(s, ".")
}

// matchCollectionName is (^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*).
func matchCollectionName(s string) bool {
	return s != "" && !strings.HasPrefix(s, "system.") &&
		nameChar(s[0]) && s[0] != '-' && !strings.Contains(s, "$")
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func nameChar(c byte) bool {
	return digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

func allOf(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return s != ""
}
