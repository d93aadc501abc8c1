package conformance

import (
	"testing"

	"kiln/test/kiln"
)

// urlsTF is what can be configured of how a function is called. NONE, to which the
// provider adds a permission, is in the example that TestTerraformFunction applies.
const urlsTF = `
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
provider "aws" {}
variable "round" {
  type    = number
  default = 1
}
resource "aws_lambda_function" "f" {
  function_name = "f"
  role          = "arn:aws:iam::000000000000:role/r"
  runtime       = "python3.12"
  handler       = "f.handler"
  filename      = "f.zip"
  publish       = true
}
resource "aws_lambda_alias" "live" {
  name             = "live"
  function_name    = aws_lambda_function.f.function_name
  function_version = aws_lambda_function.f.version
}
resource "aws_lambda_function_url" "f" {
  function_name      = aws_lambda_function.f.function_name
  authorization_type = "AWS_IAM"
  invoke_mode        = var.round == 1 ? "BUFFERED" : "RESPONSE_STREAM"
}
resource "aws_lambda_function_url" "live" {
  function_name      = aws_lambda_function.f.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = "AWS_IAM"
  invoke_mode        = "RESPONSE_STREAM"
  dynamic "cors" {
    for_each = var.round == 3 ? [] : [1]
    content {
      allow_credentials = true
      allow_origins     = ["https://example.com"]
      allow_methods     = var.round == 1 ? ["*"] : ["GET", "PUT"]
      max_age           = var.round
    }
  }
}
resource "aws_lambda_function_event_invoke_config" "f" {
  function_name                = aws_lambda_function.f.function_name
  maximum_event_age_in_seconds = 60
  maximum_retry_attempts       = var.round == 1 ? 0 : 1
  destination_config {
    on_failure { destination = "arn:aws:sqs:us-east-1:000000000000:q" }
  }
}
resource "aws_lambda_function_event_invoke_config" "live" {
  function_name          = aws_lambda_function.f.function_name
  qualifier              = aws_lambda_alias.live.name
  maximum_retry_attempts = 2
}
resource "aws_lambda_function_recursion_config" "f" {
  function_name  = aws_lambda_function.f.function_name
  recursive_loop = var.round == 1 ? "Allow" : "Terminate"
}
resource "aws_lambda_runtime_management_config" "f" {
  function_name     = aws_lambda_function.f.function_name
  update_runtime_on = var.round == 1 ? "FunctionUpdate" : "Auto"
}
`

// TestTerraformURLs applies URLs and what belongs to invocations, plans clean, changes them
// in place, and destroys them.
func TestTerraformURLs(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t, "--any-runtime")
	tf := kiln.NewTerraform(t, d, urlsTF)
	tf.Write("f.zip", string(kiln.Zip(map[string]string{"f.py": echo})))
	tf.Apply()
	s := session{goSDK{}, t, anyKey(d)}
	live := values{"FunctionName": "f", "Qualifier": "live"}
	made := s.must("GetFunctionUrlConfig", live)
	tf.Apply("-var", "round=2")
	changed := s.must("GetFunctionUrlConfig", live)
	want(t, "FunctionUrl", changed["FunctionUrl"], made["FunctionUrl"])
	want(t, "AllowMethods", member(changed, "Cors", "AllowMethods"), "[GET PUT]")
	want(t, "MaximumRetryAttempts", s.must("GetFunctionEventInvokeConfig", values{"FunctionName": "f"})["MaximumRetryAttempts"], 1)
	want(t, "RecursiveLoop", s.must("GetFunctionRecursionConfig", values{"FunctionName": "f"})["RecursiveLoop"], "Terminate")
	tf.Apply("-var", "round=3") // without CORS
	want(t, "Cors", s.must("GetFunctionUrlConfig", live)["Cors"], nil)
	tf.Destroy()
}
