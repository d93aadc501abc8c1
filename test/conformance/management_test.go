package conformance

import (
	"fmt"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestRecursionConfig: with each client.
func TestRecursionConfig(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "loop-" + name
		s.create(fn, nil)
		of := values{"FunctionName": fn}
		want(t, "the default", s.must("GetFunctionRecursionConfig", of)["RecursiveLoop"], "Terminate")
		for _, loop := range []string{"Allow", "Terminate", "Allow"} {
			want(t, "put", s.must("PutFunctionRecursionConfig", values{"FunctionName": fn, "RecursiveLoop": loop})["RecursiveLoop"], loop)
			want(t, "got", s.must("GetFunctionRecursionConfig", of)["RecursiveLoop"], loop)
		}
		s.refused("GetFunctionRecursionConfig", values{"FunctionName": "absent"}, 404, missing, "Function not found: "+arnPrefix+"absent")
		s.refused("PutFunctionRecursionConfig", values{"FunctionName": "absent", "RecursiveLoop": "Allow"}, 404, missing, "Function not found: "+arnPrefix+"absent")
		s.must("DeleteFunction", of)
		s.create(fn, nil)
		want(t, "of another function of the name", s.must("GetFunctionRecursionConfig", of)["RecursiveLoop"], "Terminate")
	})
	s := session{goSDK{}, t, anyKey(d)}
	s.refused("PutFunctionRecursionConfig", values{"FunctionName": "f", "RecursiveLoop": "allow"}, 400, "ValidationException",
		"1 validation error detected: Value 'allow' at 'recursiveLoop' failed to satisfy constraint: Member must satisfy enum value set: [Allow, Terminate]")
	s.refusedIf("GetFunctionRecursionConfig", values{"FunctionName": "f:live"}, 400, "ValidationException", "the pattern", func(got string) bool { return strings.Contains(got, "Value 'f:live' at 'functionName'") })
}

// TestRuntimeManagement: by version, with each client.
func TestRuntimeManagement(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "managed-" + name
		s.create(fn, nil)
		s.must("PublishVersion", values{"FunctionName": fn})
		s.must("CreateAlias", values{"FunctionName": fn, "Name": "live", "FunctionVersion": "1"})
		has := member(s.must("GetFunctionConfiguration", values{"FunctionName": fn}), "RuntimeVersionConfig", "RuntimeVersionArn")
		of := values{"FunctionName": fn}
		shown := func(in values, mode string, version any) {
			t.Helper()
			got := s.must("GetRuntimeManagementConfig", in)
			q := in["Qualifier"]
			if q == nil {
				q = "$LATEST"
			}
			want(t, "FunctionArn", got["FunctionArn"], fmt.Sprint(arnPrefix, fn, ":", q))
			want(t, "UpdateRuntimeOn", got["UpdateRuntimeOn"], mode)
			want(t, "RuntimeVersionArn", got["RuntimeVersionArn"], version)
		}
		one := values{"FunctionName": fn, "Qualifier": "1"}
		shown(of, "Auto", nil)
		shown(one, "Auto", nil)
		put := s.must("PutRuntimeManagementConfig", values{"FunctionName": fn, "UpdateRuntimeOn": "Manual", "RuntimeVersionArn": has})
		want(t, "FunctionArn", put["FunctionArn"], arnPrefix+fn+":$LATEST")
		want(t, "RuntimeVersionArn", put["RuntimeVersionArn"], has)
		shown(of, "Manual", has)
		shown(one, "Auto", nil) // each version has its own
		s.must("PutRuntimeManagementConfig", values{"FunctionName": fn, "Qualifier": "1", "UpdateRuntimeOn": "FunctionUpdate"})
		shown(one, "FunctionUpdate", nil)
		s.must("PutRuntimeManagementConfig", values{"FunctionName": fn, "UpdateRuntimeOn": "Auto"})
		shown(of, "Auto", nil)
		_, payload := s.invoke(of)
		if !strings.Contains(payload, arnPrefix+fn) {
			t.Errorf("the function answers %s", payload)
		}
	})
}

// TestRuntimeManagementRefusals is what requests about runtimes are refused for.
func TestRuntimeManagementRefusals(t *testing.T) {
	t.Parallel()
	s := session{goSDK{}, t, anyKey(kiln.Start(t, "--any-runtime"))}
	s.create("f", nil)
	s.must("PublishVersion", values{"FunctionName": "f"})
	s.must("CreateAlias", values{"FunctionName": "f", "Name": "live", "FunctionVersion": "1"})
	const other = "arn:aws:lambda:us-east-1::runtime:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		in      values
		refusal string
	}{
		{values{"UpdateRuntimeOn": "Manual"}, "RuntimeVersionArn is required when UpdateRuntimeOn is set to Manual."},
		{values{"UpdateRuntimeOn": "Auto", "RuntimeVersionArn": other}, "RuntimeVersionArn is only supported when UpdateRuntimeOn is set to Manual."},
		{values{"UpdateRuntimeOn": "FunctionUpdate", "RuntimeVersionArn": other}, "RuntimeVersionArn is only supported when UpdateRuntimeOn is set to Manual."},
		{values{"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": other}, "The runtime version " + other + " is not there: of python3.12 Kiln has "},
		{values{"UpdateRuntimeOn": "Auto", "Qualifier": "live"}, "Runtimes are managed by version: name 1, the version that the alias leads to, or $LATEST, in place of live."},
	} {
		c.in["FunctionName"] = "f"
		s.refusedIf("PutRuntimeManagementConfig", c.in, 400, invalid, c.refusal, func(got string) bool { return strings.HasPrefix(got, c.refusal) })
	}
	s.refused("PutRuntimeManagementConfig", values{"FunctionName": "f", "UpdateRuntimeOn": "Never"}, 400, "ValidationException",
		"1 validation error detected: Value 'Never' at 'updateRuntimeOn' failed to satisfy constraint: Member must satisfy enum value set: [Auto, Manual, FunctionUpdate]")
	s.refusedIf("PutRuntimeManagementConfig", values{"FunctionName": "f", "UpdateRuntimeOn": "Manual", "RuntimeVersionArn": "python3.12"}, 400, "ValidationException", "the pattern",
		func(got string) bool {
			return strings.Contains(got, "at 'runtimeVersionArn' failed to satisfy constraint")
		})
	for q, arn := range map[string]string{"": arnPrefix + "absent", "7": arnPrefix + "absent:7"} {
		in := values{"FunctionName": "absent", "UpdateRuntimeOn": "Auto"}
		if q != "" {
			in["Qualifier"] = q
		}
		s.refused("PutRuntimeManagementConfig", in, 404, missing, "Function not found: "+arn)
		delete(in, "UpdateRuntimeOn")
		s.refused("GetRuntimeManagementConfig", in, 404, missing, "Function not found: "+arn)
	}
}

// TestScalingConfig: no function has a capacity provider, so that none is scaled by it.
func TestScalingConfig(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "scaled-" + name
		s.create(fn, nil)
		s.must("PublishVersion", values{"FunctionName": fn})
		for q, arn := range map[string]string{"1": "", "7": arnPrefix + fn + ":7", "$LATEST.PUBLISHED": arnPrefix + fn + ":$LATEST.PUBLISHED"} {
			in := values{"FunctionName": fn, "Qualifier": q}
			for _, operation := range []string{"GetFunctionScalingConfig", "PutFunctionScalingConfig"} {
				if arn != "" {
					s.refused(operation, in, 404, missing, "Function not found: "+arn)
					continue
				}
				s.refused(operation, in, 400, invalid, "Scaling configurations are supported only for functions with a CapacityProviderConfig, which "+arnPrefix+fn+":1 has none of.")
			}
		}
	})
}
