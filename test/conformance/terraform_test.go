package conformance

import (
	"testing"

	"kiln/test/kiln"
)

// rolesTF is what a deployment of a function has of IAM.
const rolesTF = `
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
provider "aws" {}
variable "team" { default = "red" }
data "aws_caller_identity" "me" {}
data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}
data "aws_iam_policy_document" "invoke" {
  statement {
    actions   = var.team == "red" ? ["lambda:InvokeFunction"] : ["lambda:InvokeFunction", "lambda:GetFunction"]
    resources = ["arn:aws:lambda:*:${data.aws_caller_identity.me.account_id}:function:*"]
  }
}
data "aws_iam_policy" "queue" { name = "AWSLambdaSQSQueueExecutionRole" }
resource "aws_iam_role" "worker" {
  name                 = "worker"
  path                 = "/app/"
  description          = "of ${var.team}"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  max_session_duration = 7200
  permissions_boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
  tags                 = { team = var.team }
}
resource "aws_iam_role_policy" "inline" {
  role   = aws_iam_role.worker.name
  name   = "inline"
  policy = data.aws_iam_policy_document.invoke.json
}
resource "aws_iam_policy" "own" {
  name   = "own"
  policy = data.aws_iam_policy_document.invoke.json
  tags   = { team = var.team }
}
resource "aws_iam_role_policy_attachment" "own" {
  role       = aws_iam_role.worker.name
  policy_arn = aws_iam_policy.own.arn
}
resource "aws_iam_role_policy_attachment" "basic" {
  role       = aws_iam_role.worker.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}
resource "aws_iam_role_policy_attachment" "queue" {
  role       = aws_iam_role.worker.name
  policy_arn = data.aws_iam_policy.queue.arn
}
`

// TestTerraformRoles applies roles and policies, plans clean, changes them in place,
// and destroys them.
func TestTerraformRoles(t *testing.T) {
	t.Parallel()
	d := kiln.Start(t)
	tf := kiln.NewTerraform(t, d, rolesTF)
	tf.Apply()
	c := awsLogs(t)
	s := session{c, t, iamOf(d)}
	role := s.must("GetRole", values{"RoleName": "worker"})["Role"].(map[string]any)
	want(t, "Arn", role["Arn"], "arn:aws:iam::000000000000:role/app/worker")
	want(t, "policies", len(s.must("ListAttachedRolePolicies", values{"RoleName": "worker"})["AttachedPolicies"].([]any)), "3")

	tf.Apply("-var", "team=blue")
	changed := s.must("GetRole", values{"RoleName": "worker"})["Role"].(map[string]any)
	want(t, "RoleId", changed["RoleId"], role["RoleId"].(string))
	want(t, "Description", changed["Description"], "of blue")
	versions := s.must("ListPolicyVersions", values{"PolicyArn": "arn:aws:iam::000000000000:policy/own"})["Versions"].([]any)
	want(t, "versions", len(versions), "2")

	tf.Destroy()
	want(t, "roles", s.must("ListRoles", nil)["Roles"], "[]")
	want(t, "policies", s.must("ListPolicies", values{"Scope": "Local"})["Policies"], "[]")
}
