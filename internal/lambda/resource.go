package lambda

import "strings"

// ParseResource parses the ARN of something that can have tags. It is a
// FunctionARN, a MappingARN, a SigningConfigARN or a CapacityProviderARN.
func ParseResource(s string) (ARN, error) {
	part := strings.SplitN(s, ":", 8)
	if len(part) < 7 || part[0] != "arn" || part[2] != "lambda" {
		return nil, InvalidParameter("%q is not an ARN of Lambda", s)
	}
	scope, id := Scope{Account: AccountID(part[4]), Region: Region(part[3])}, part[6]
	switch kind := part[5]; {
	case kind == "function":
		return ParseFunctionARN(s)
	case len(part) > 7:
	case kind == "event-source-mapping":
		return MappingARN{scope, id}, nil
	case kind == "code-signing-config":
		return SigningConfigARN{scope, id}, nil
	case kind == "capacity-provider":
		return CapacityProviderARN{scope, id}, nil
	}
	return nil, InvalidParameter("%q is not the ARN of a function, an event source mapping, a code signing configuration or a capacity provider", s)
}
