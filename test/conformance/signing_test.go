package conformance

import (
	"fmt"
	"strings"
	"testing"

	"kiln/test/kiln"
)

const profile = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/0123456789"

// TestCodeSigning takes code signing configurations from creation to end with each client.
func TestCodeSigning(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		publishers := values{"SigningProfileVersionArns": []any{profile}}
		made := s.must("CreateCodeSigningConfig", values{"AllowedPublishers": publishers, "Tags": values{"team": "red"}})
		arn := member(made, "CodeSigningConfig", "CodeSigningConfigArn").(string)
		want(t, "policy", member(made, "CodeSigningConfig", "CodeSigningPolicies", "UntrustedArtifactOnDeployment"), "Warn")
		want(t, "publishers", member(made, "CodeSigningConfig", "AllowedPublishers", "SigningProfileVersionArns"), []any{profile})
		if !strings.HasSuffix(arn, fmt.Sprint(":", member(made, "CodeSigningConfig", "CodeSigningConfigId"))) {
			t.Errorf("the id of %s: %v", arn, made)
		}
		of := values{"CodeSigningConfigArn": arn}
		want(t, "functions", fmt.Sprint(s.must("ListFunctionsByCodeSigningConfig", of)["FunctionArns"]), "[]")

		// Warn accepts.
		fn := "signed-" + name
		s.create(fn, values{"CodeSigningConfigArn": arn})
		by := values{"FunctionName": fn}
		want(t, "CodeSigningConfigArn", s.must("GetFunctionCodeSigningConfig", by)["CodeSigningConfigArn"], arn)
		want(t, "functions", fmt.Sprint(s.must("ListFunctionsByCodeSigningConfig", of)["FunctionArns"]), "["+arnPrefix+fn+"]")
		s.refused("DeleteCodeSigningConfig", of, 409, "ResourceConflictException", "The code signing configuration "+arn+" is attached to a function. Detach it from all functions first.")

		// Enforce refuses.
		policies := values{"UntrustedArtifactOnDeployment": "Enforce"}
		changed := s.must("UpdateCodeSigningConfig", values{"CodeSigningConfigArn": arn, "CodeSigningPolicies": policies, "Description": "strict"})
		want(t, "Description", member(changed, "CodeSigningConfig", "Description"), "strict")
		want(t, "publishers", member(changed, "CodeSigningConfig", "AllowedPublishers", "SigningProfileVersionArns"), []any{profile})
		unsigned := "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not configured to accept. Check the provided signature for "
		s.refused("UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": kiln.Zip(map[string]string{"f.py": upgraded})}, 400, "CodeVerificationFailedException", unsigned+fn+".")
		s.refused("CreateFunction", create(fn+"2", values{"CodeSigningConfigArn": arn}), 400, "CodeVerificationFailedException", unsigned+fn+"2.")
		s.must("UpdateFunctionConfiguration", values{"FunctionName": fn, "Description": "no code"})
		if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
			t.Fatal(f)
		}

		// Without it the code can be updated again.
		for range 2 {
			s.must("DeleteFunctionCodeSigningConfig", by)
		}
		want(t, "CodeSigningConfigArn", s.must("GetFunctionCodeSigningConfig", by)["CodeSigningConfigArn"], nil)
		s.must("UpdateFunctionCode", values{"FunctionName": fn, "ZipFile": kiln.Zip(map[string]string{"f.py": upgraded})})
		if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
			t.Fatal(f)
		}
		put := s.must("PutFunctionCodeSigningConfig", values{"FunctionName": fn, "CodeSigningConfigArn": arn})
		want(t, "FunctionName", put["FunctionName"], fn)
		s.must("DeleteFunction", by) // which detaches it
		s.must("DeleteCodeSigningConfig", of)

		absent := "The Lambda code signing configuration " + arn + " can not be found."
		for _, operation := range []string{"GetCodeSigningConfig", "UpdateCodeSigningConfig", "DeleteCodeSigningConfig", "ListFunctionsByCodeSigningConfig"} {
			s.refused(operation, of, 404, "ResourceNotFoundException", absent)
		}
		gone := "The code signing configuration cannot be found. Check that the provided configuration is not deleted: " + arn + "."
		s.refused("PutFunctionCodeSigningConfig", values{"FunctionName": "absent", "CodeSigningConfigArn": arn}, 404, "CodeSigningConfigNotFoundException", gone)
		s.refused("CreateFunction", create(fn, values{"CodeSigningConfigArn": arn}), 404, "CodeSigningConfigNotFoundException", gone)
		for _, operation := range []string{"GetFunctionCodeSigningConfig", "DeleteFunctionCodeSigningConfig"} {
			s.refused(operation, values{"FunctionName": "absent"}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+"absent")
		}
	})
}

// TestTagging tags every kind of resource with each client.
func TestTagging(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "tagged-" + name
		tags := values{"team": "red"}
		s.create(fn, values{"Tags": tags})
		m := s.must("CreateEventSourceMapping", values{"FunctionName": fn, "EventSourceArn": jobs, "Tags": tags})
		signing := s.must("CreateCodeSigningConfig", values{"AllowedPublishers": values{"SigningProfileVersionArns": []any{profile}}, "Tags": tags})
		s.must("CreateCapacityProvider", provider("p-"+name, values{"Tags": tags}))
		for _, arn := range []any{
			arnPrefix + fn, m["EventSourceMappingArn"], member(signing, "CodeSigningConfig", "CodeSigningConfigArn"), capacityPrefix + "p-" + name,
		} {
			of := values{"Resource": arn}
			want(t, fmt.Sprint("tags of ", arn), s.must("ListTags", of)["Tags"], map[string]any{"team": "red"})
			s.must("TagResource", values{"Resource": arn, "Tags": values{"team": "blue", "cost": "1"}})
			s.must("UntagResource", values{"Resource": arn, "TagKeys": []any{"cost", "absent"}})
			want(t, fmt.Sprint("tags of ", arn), s.must("ListTags", of)["Tags"], map[string]any{"team": "blue"})
		}
		want(t, "Tags", s.must("GetFunction", values{"FunctionName": fn})["Tags"], map[string]any{"team": "blue"})
		version := s.must("PublishVersion", values{"FunctionName": fn})
		want(t, "tags of a version", s.must("GetFunction", values{"FunctionName": fn, "Qualifier": version["Version"]})["Tags"], map[string]any{"team": "blue"})

		const missing, invalid = "ResourceNotFoundException", "InvalidParameterValueException"
		const mappingARN = "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:01234567-89ab-4def-8123-456789abcdef"
		for arn, message := range map[string]string{
			arnPrefix + "absent":      "Function not found: " + arnPrefix + "absent",
			mappingARN:                "Event source mapping not found: " + mappingARN,
			capacityPrefix + "absent": "Capacity provider not found: " + capacityPrefix + "absent",
			"arn:aws:lambda:eu-west-1:000000000000:function:f": "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
		} {
			s.refused("ListTags", values{"Resource": arn}, 404, missing, message)
			s.refused("TagResource", values{"Resource": arn, "Tags": tags}, 404, missing, message)
			s.refused("UntagResource", values{"Resource": arn, "TagKeys": []any{"team"}}, 404, missing, message)
		}
		s.refused("ListTags", values{"Resource": arnPrefix + fn + ":$LATEST"}, 400, invalid, "Tags on function aliases and versions are not supported. Please specify a function ARN.")
		s.refused("TagResource", values{"Resource": arnPrefix + fn, "Tags": values{}}, 400, invalid, "An error occurred and the request cannot be processed.")
		s.refusedIf("ListTags", values{"Resource": "arn:aws:lambda:us-east-1:000000000000:layer:l"}, 400, "ValidationException", "a pattern", func(got string) bool { return strings.Contains(got, "regular expression pattern") })
	})
}

const capacityPrefix = "arn:aws:lambda:us-east-1:000000000000:capacity-provider:"

func provider(name string, more values) values {
	in := values{
		"CapacityProviderName": name, "PermissionsConfig": values{"CapacityProviderOperatorRoleArn": kiln.Role},
		"VpcConfig": values{"SubnetIds": []any{"subnet-0123456789abcdef0"}, "SecurityGroupIds": []any{"sg-0123456789abcdef0"}},
	}
	for m, v := range more {
		in[m] = v
	}
	return in
}

// TestCapacityProviders takes capacity providers from creation to end with each client.
func TestCapacityProviders(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		p := "pool-" + name
		of := values{"CapacityProviderName": p}
		made := s.must("CreateCapacityProvider", provider(p, values{
			"CapacityProviderScalingConfig": values{"MaxVCpuCount": 30, "ScalingMode": "Auto"}, "InstanceRequirements": values{"Architectures": []any{"arm64"}},
		}))
		want(t, "State", member(made, "CapacityProvider", "State"), "Pending")
		want(t, "CapacityProviderArn", member(made, "CapacityProvider", "CapacityProviderArn"), capacityPrefix+p)
		for _, reference := range []string{p, capacityPrefix + p} {
			got := s.must("GetCapacityProvider", values{"CapacityProviderName": reference})
			want(t, "State", member(got, "CapacityProvider", "State"), "Active")
			want(t, "MaxVCpuCount", member(got, "CapacityProvider", "CapacityProviderScalingConfig", "MaxVCpuCount"), 30)
			want(t, "SubnetIds", member(got, "CapacityProvider", "VpcConfig", "SubnetIds"), "[subnet-0123456789abcdef0]")
			want(t, "Architectures", member(got, "CapacityProvider", "InstanceRequirements", "Architectures"), "[arm64]")
		}
		s.refused("CreateCapacityProvider", provider(p, nil), 409, "ResourceConflictException", "Capacity provider already exists: "+capacityPrefix+p)
		changed := s.must("UpdateCapacityProvider", values{"CapacityProviderName": p, "CapacityProviderScalingConfig": values{"MaxVCpuCount": 40}})
		want(t, "MaxVCpuCount", member(changed, "CapacityProvider", "CapacityProviderScalingConfig", "MaxVCpuCount"), 40)
		want(t, "functions", fmt.Sprint(s.must("ListFunctionVersionsByCapacityProvider", of)["FunctionVersions"]), "[]")
		s.refusedIf("CreateFunction", create("on-"+name, values{"CapacityProviderConfig": values{"LambdaManagedInstancesCapacityProviderConfig": values{"CapacityProviderArn": capacityPrefix + p}}}),
			400, "InvalidParameterValueException", "what is not supported", func(got string) bool { return strings.HasPrefix(got, "CapacityProviderConfig is not supported:") })
		want(t, "State", member(s.must("DeleteCapacityProvider", of), "CapacityProvider", "State"), "Deleting")
		for _, operation := range []string{"GetCapacityProvider", "DeleteCapacityProvider", "UpdateCapacityProvider", "ListFunctionVersionsByCapacityProvider"} {
			s.refused(operation, of, 404, "ResourceNotFoundException", "Capacity provider not found: "+capacityPrefix+p)
		}
	})
}

// TestDurableExecutions: there are none, and no function can have any.
func TestDurableExecutions(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "plain-" + name
		s.create(fn, nil)
		list, _ := s.must("ListDurableExecutionsByFunction", values{"FunctionName": fn})["DurableExecutions"].([]any)
		want(t, "executions", len(list), 0)
		s.refused("ListDurableExecutionsByFunction", values{"FunctionName": "absent"}, 404, "ResourceNotFoundException", "Function not found: "+arnPrefix+"absent")
		arn := arnPrefix + fn + ":$LATEST/durable-execution/e/1"
		of := values{"DurableExecutionArn": arn}
		for _, operation := range []string{"GetDurableExecution", "GetDurableExecutionHistory", "StopDurableExecution"} {
			s.refused(operation, of, 404, "ResourceNotFoundException", "Durable execution not found: "+arn)
		}
		of["CheckpointToken"] = "dG9rZW4="
		for _, operation := range []string{"GetDurableExecutionState", "CheckpointDurableExecution"} {
			s.refused(operation, of, 400, "InvalidParameterValueException", "Invalid Checkpoint Token: no invocation of "+arn+" is running")
		}
		for _, operation := range []string{"Success", "Failure", "Heartbeat"} {
			s.refused("SendDurableExecutionCallback"+operation, values{"CallbackId": "aWQ="}, 404, "ResourceNotFoundException", "Callback not found: aWQ=")
		}
		unsupported := values{"DurableConfig": values{"ExecutionTimeout": 60}, "TenancyConfig": values{"TenantIsolationMode": "PER_TENANT"}, "PublishTo": "LATEST_PUBLISHED"}
		for member, value := range unsupported {
			s.refusedIf("CreateFunction", create(fn+"2", values{member: value}), 400, "InvalidParameterValueException", "what is not supported",
				func(got string) bool {
					return strings.HasPrefix(got, member+" is ") && strings.Contains(got, "supported")
				})
		}
	})
}
