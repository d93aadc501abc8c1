package main

import "bytes"

// service is one API: its model, the package that is generated from it, and what
// of it there is.
type service struct {
	model, pkg string
	title      string   // as people call it
	dir        string   // of its door, below internal/front
	built      []string // operations to make code for; nil: all
	events     []string // structures that only event streams carry
	epochs     bool     // times travel as seconds since 1970
	query      bool     // the protocol is query: forms in, XML out
	invalid    string   // the exception for violated constraints; "": ValidationException
	notes      string   // the part of the documentation that people write
	request    func(*operation) string
	files      []file
}

type file struct {
	name  string
	write func(*model, *bytes.Buffer)
}

var services = []service{
	{
		model: "lambda.json", pkg: "lambdaapi", title: "Lambda", dir: "api", notes: notes, epochs: true,
		events:  []string{"InvokeWithResponseStreamCompleteEvent"},
		request: func(op *operation) string { return op.HTTP.Method + " " + op.HTTP.RequestURI },
		files: []file{
			{"types.gen.go", writeTypes},
			{"service.gen.go", writeService},
			{"operations.gen.go", writeOperations},
			{"decode.gen.go", writeDecode},
			{"encode.gen.go", writeEncode},
			{"validate.gen.go", writeValidate},
			{"errors.gen.go", writeErrors},
		},
	},
	{
		model: "logs.json", pkg: "logsapi", title: "CloudWatch Logs", dir: "logs", notes: logsNotes,
		built: []string{
			"CreateLogGroup", "DeleteLogGroup", "DescribeLogGroups", "PutRetentionPolicy", "DeleteRetentionPolicy", "PutLogGroupDeletionProtection",
			"CreateLogStream", "DeleteLogStream", "DescribeLogStreams",
			"PutLogEvents", "GetLogEvents", "FilterLogEvents",
			"ListTagsForResource", "TagResource", "UntagResource", "ListTagsLogGroup", "TagLogGroup", "UntagLogGroup",
		},
		invalid: "InvalidParameterException",
		request: func(op *operation) string { return "Logs_20140328." + op.Name },
		files: []file{
			{"types.gen.go", writeTypes},
			{"operations.gen.go", writeTargets},
			{"decode.gen.go", writeDecodeJSON},
			{"validate.gen.go", writeValidate},
		},
	},
	{
		model: "iam.json", pkg: "iamapi", title: "IAM", dir: "iam", notes: iamNotes, query: true,
		built: []string{
			"CreateRole", "GetRole", "ListRoles", "UpdateRole", "UpdateRoleDescription", "UpdateAssumeRolePolicy", "DeleteRole",
			"TagRole", "UntagRole", "ListRoleTags", "PutRolePermissionsBoundary", "DeleteRolePermissionsBoundary", "CreateServiceLinkedRole",
			"PutRolePolicy", "GetRolePolicy", "ListRolePolicies", "DeleteRolePolicy",
			"AttachRolePolicy", "DetachRolePolicy", "ListAttachedRolePolicies", "ListInstanceProfilesForRole",
			"CreatePolicy", "GetPolicy", "ListPolicies", "DeletePolicy", "TagPolicy", "UntagPolicy", "ListPolicyTags", "ListEntitiesForPolicy",
			"CreatePolicyVersion", "GetPolicyVersion", "ListPolicyVersions", "SetDefaultPolicyVersion", "DeletePolicyVersion",
			"ListAccountAliases", "GetUser",
		},
		invalid: "ValidationError", request: queryRequest, files: queryFiles,
	},
	{
		model: "sts.json", pkg: "stsapi", title: "STS", dir: "sts", notes: stsNotes, query: true,
		built:   []string{"AssumeRole", "GetAccessKeyInfo", "GetCallerIdentity"},
		invalid: "ValidationError", request: queryRequest, files: queryFiles,
	},
}
