package conformance

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kiln/test/kiln"
)

// TestCodeFromS3 deploys functions and layers from buckets of an S3 that others wrote,
// with each client.
func TestCodeFromS3(t *testing.T) {
	t.Parallel()
	moto := kiln.Moto(t)
	store := s3.New(s3.Options{BaseEndpoint: &moto, UsePathStyle: true, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("moto", "moto", "")})
	bucket := aws.String("code")
	if _, err := store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	put := func(key string, body []byte) (version string) {
		out, err := store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		return *out.VersionId
	}
	program := func(says string) []byte {
		return kiln.Zip(map[string]string{"index.js": `exports.handler = async () => "` + says + `"`})
	}
	const key = "releases/my function+1 ü.zip"
	first := put(key, program("first"))
	put(key, program("second"))
	put("text", []byte("not a zip"))

	d := kiln.StartEnv(t, []string{"KILN_ENDPOINTS=s3=" + moto, "AWS_ACCESS_KEY_ID=kiln", "AWS_SECRET_ACCESS_KEY=kiln"}, "--any-runtime")
	each(t, func(t *testing.T, name string, c client) {
		s := session{c, t, anyKey(d)}
		fn := "s3-" + name
		at := func(key string, more values) values {
			in := values{"S3Bucket": "code", "S3Key": key}
			for m, v := range more {
				in[m] = v
			}
			return in
		}
		s.create(fn, values{"Runtime": "nodejs22.x", "Handler": "index.handler", "Code": at(key, values{"S3ObjectVersion": first})})
		if _, payload := s.invoke(values{"FunctionName": fn}); payload != `"first"` {
			t.Errorf("the version that was named says %s", payload)
		}
		dry := s.must("UpdateFunctionCode", at(key, values{"FunctionName": fn, "DryRun": true}))
		now := s.must("GetFunctionConfiguration", values{"FunctionName": fn})
		if dry["CodeSha256"] == now["CodeSha256"] {
			t.Error("a dry run shows the old code")
		}
		s.must("UpdateFunctionCode", at(key, values{"FunctionName": fn, "Publish": true}))
		if f := s.wait(s.to, "FunctionUpdatedV2", fn); f != nil {
			t.Fatal(f)
		}
		if _, payload := s.invoke(values{"FunctionName": fn, "Qualifier": "1"}); payload != `"second"` {
			t.Errorf("the newest version says %s", payload)
		}
		layer := s.must("PublishLayerVersion", values{"LayerName": "layer-" + name, "Content": at(key, nil)})
		want(t, "CodeSha256", member(layer, "Content", "CodeSha256"), dry["CodeSha256"])

		const object = "Error occurred while GetObject. S3 Error Code: "
		for _, bad := range []struct {
			in      values
			message string
		}{
			{at("absent", nil), object + "NoSuchKey. S3 Error Message: The specified key does not exist."},
			{values{"S3Bucket": "absent", "S3Key": "k"}, object + "NoSuchBucket. S3 Error Message: The specified bucket does not exist"},
			{at("text", nil), "Could not unzip uploaded file. Please check your file, then try to upload again."},
			{values{"S3Bucket": "code"}, "Please provide both S3Bucket and S3Key as a source for function code."},
			{at(key, values{"ZipFile": program("zip")}), "Please do not provide other FunctionCode parameters when providing a ZipFile."},
			{at(key, values{"ImageUri": "image:tag"}), "Please don't provide ImageUri when updating a function with packageType Zip."},
			{values{}, "Please provide a source for function code."},
		} {
			bad.in["FunctionName"] = fn
			s.refused("UpdateFunctionCode", bad.in, 400, "InvalidParameterValueException", bad.message)
		}
		s.refused("PublishLayerVersion", values{"LayerName": "l", "Content": at("absent", nil)}, 400, "InvalidParameterValueException",
			object+"NoSuchKey. S3 Error Message: The specified key does not exist.")
	})
	if strings.Contains(d.Log.String(), "no credentials for S3") {
		t.Error("the credentials in kiln's environment are not found")
	}
}

// Without another S3, code comes from Kiln's own: of the account, in the region.
func TestCodeFromOwnS3(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	s := session{goSDK{}, t, anyKey(d)}
	absent := create("f", values{"Code": values{"S3Bucket": "code", "S3Key": "f.zip"}})
	s.refused("CreateFunction", absent, 400, "InvalidParameterValueException", "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist.")
	store := s3.New(s3.Options{BaseEndpoint: &d.URL, UsePathStyle: true, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	if _, err := store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("code")}); err != nil {
		t.Fatal(err)
	}
	s.refused("CreateFunction", absent, 400, "InvalidParameterValueException", "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.")
	program := kiln.Zip(map[string]string{"index.js": `exports.handler = async () => "from Kiln"`})
	if _, err := store.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("code"), Key: aws.String("f.zip"), Body: bytes.NewReader(program)}); err != nil {
		t.Fatal(err)
	}
	s.create("f", values{"Runtime": "nodejs22.x", "Handler": "index.handler", "Code": absent["Code"]})
	if _, payload := s.invoke(values{"FunctionName": "f"}); payload != `"from Kiln"` {
		t.Error(payload)
	}
}
