package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"kiln/internal/lambda"
)

// Create is what CreateFunction asks for. Settings are complete but for the
// defaults that need a name or a machine.
type Create struct {
	By       lambda.Principal // must be allowed to read the layers
	ARN      lambda.FunctionARN
	Settings lambda.Settings
	Layers   []string // ARNs of their versions
	Zip      []byte
	Object   *lambda.S3Object // in place of Zip
	Key      string           // SourceKMSKeyArn of either; kept
	Image    string           // with PackageType Image
	Tags     map[string]string
	Attached lambda.Attached
	Publish  bool // makes version 1 as well, which is then returned
}

// Create makes a function. What it returns is Pending; it becomes Active at once,
// or when its image is here.
func (r *Registry) Create(ctx context.Context, c Create) (*lambda.Function, error) {
	s := &c.Settings
	r.complete(s, c.ARN)
	held := r.claims(c.ARN.Scope)
	defer held.release()
	if err := r.checkSettings(c.By, c.ARN.Region, s, c.Layers, held); err != nil {
		return nil, err
	}
	if name := string(c.ARN.Name); len(name) > lambda.MaxFunctionName {
		return nil, lambda.InvalidParameter("1 validation error detected: Value '%s' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to %d", name, lambda.MaxFunctionName)
	}
	tags, err := lambda.Retag(nil, c.Tags, nil)
	if err != nil {
		return nil, err
	}
	defer r.writes.lock(c.ARN.String())()
	if r.find(c.ARN) != nil {
		return nil, lambda.Conflict("Function already exist: %s", c.ARN.Name)
	}
	code, err := r.addCode(ctx, s, source{c.Zip, c.Object, c.Image, c.Key}, held)
	if err != nil {
		return nil, err
	}
	f := &lambda.Function{
		ARN:        c.ARN,
		Version:    lambda.Latest,
		Revision:   lambda.NewRevisionID(),
		Settings:   *s,
		Code:       code,
		Tags:       tags,
		Modified:   time.Now().UTC(),
		State:      lambda.Pending,
		Reason:     creatingReason,
		ReasonCode: creatingCode,
		Build:      lambda.NewUUID(),
	}
	return r.commitLatest(ctx, &entry{shown: f, attached: c.Attached}, c.Publish)
}

// commitLatest makes the change of $LATEST that e is durable, with Publish together
// with the version that it makes, and returns what the caller sees.
func (r *Registry) commitLatest(ctx context.Context, e *entry, publishing bool) (*lambda.Function, error) {
	e.settled = make(chan struct{})
	if !publishing {
		return e.shown, r.commit(ctx, e)
	}
	version := publish(e)
	return version.shown, r.commit(ctx, version, e)
}

// AWS gives these for updates too.
const (
	creatingReason = "The function is being created."
	creatingCode   = "Creating"
)

// UpdateCode is what UpdateFunctionCode asks for.
type UpdateCode struct {
	ARN          lambda.FunctionARN
	Zip          []byte
	Object       *lambda.S3Object    // in place of Zip
	Key          string              // SourceKMSKeyArn of either; kept
	Image        string              // of a function with PackageType Image
	Architecture lambda.Architecture // "" keeps it
	Revision     lambda.RevisionID   // "" for any
	Publish      bool                // makes a version as well, which is then returned
	DryRun       bool
}

// UpdateCode gives a function other code. Invocations run it once the function
// is shown as updated successfully.
func (r *Registry) UpdateCode(ctx context.Context, u UpdateCode) (*lambda.Function, error) {
	return r.update(ctx, u.ARN, u.Revision, u.Publish, u.DryRun, func(f *lambda.Function, held *claims) (err error) {
		if u.Architecture != "" {
			f.Settings.Architecture = u.Architecture
		}
		f.Code, err = r.addCode(ctx, &f.Settings, source{u.Zip, u.Object, u.Image, u.Key}, held)
		return err
	})
}

// UpdateConfiguration is what UpdateFunctionConfiguration asks for.
type UpdateConfiguration struct {
	By       lambda.Principal // must be allowed to read the layers
	ARN      lambda.FunctionARN
	Revision lambda.RevisionID      // "" for any
	Layers   []string               // nil keeps them
	Apply    func(*lambda.Settings) // changes what the request names
}

// UpdateConfiguration changes a function's settings.
func (r *Registry) UpdateConfiguration(ctx context.Context, u UpdateConfiguration) (*lambda.Function, error) {
	return r.update(ctx, u.ARN, u.Revision, false, false, func(f *lambda.Function, held *claims) error {
		u.Apply(&f.Settings)
		r.complete(&f.Settings, f.ARN)
		if err := r.checkSettings(u.By, f.ARN.Region, &f.Settings, u.Layers, held); err != nil {
			return err
		}
		return r.checkCode(ctx, &f.Settings, f.Code)
	})
}

// update makes the change on a copy. What change claims is released once the
// change is durable, or failed.
func (r *Registry) update(ctx context.Context, arn lambda.FunctionARN, revision lambda.RevisionID, publishing, dryRun bool, change func(*lambda.Function, *claims) error) (*lambda.Function, error) {
	defer r.writes.lock(arn.Unqualified().String())()
	from, err := r.ready(arn, revision)
	if err != nil {
		return nil, err
	}
	f := *from.shown
	f.Settings.Environment = maps.Clone(f.Settings.Environment)
	held := r.claims(arn.Scope)
	defer held.release()
	if err := change(&f, held); err != nil {
		return nil, err
	}
	f.Modified = time.Now().UTC()
	if dryRun {
		return &f, nil
	}
	f.Revision = lambda.NewRevisionID()
	f.UpdateStatus, f.Reason, f.ReasonCode = lambda.UpdateInProgress, creatingReason, creatingCode
	f.Build = lambda.NewUUID()
	next := *from
	next.shown = &f
	return r.commitLatest(ctx, &next, publishing)
}

// ready returns $LATEST where it may be changed or published now.
func (r *Registry) ready(arn lambda.FunctionARN, revision lambda.RevisionID) (*entry, error) {
	if arn.Qualifier != "" && arn.Qualifier != lambda.Latest {
		return nil, notFound(arn)
	}
	e := r.find(arn)
	switch {
	case e == nil:
		return nil, notFound(arn)
	case e.shown.State == lambda.Pending:
		return nil, lambda.Conflict("The operation cannot be performed at this time. The function is currently in the following state: Pending")
	case e.shown.UpdateStatus == lambda.UpdateInProgress:
		return nil, lambda.Conflict("The operation cannot be performed at this time. An update is in progress for resource: %s", e.shown.ARN)
	case revision != "" && revision != e.shown.Revision:
		return nil, lambda.PreconditionFailed("GetFunction/GetAlias")
	}
	return e, nil
}

// addCode verifies and stores a zip, or looks an image up, and checks that it
// makes a function. The image is pulled later.
func (r *Registry) addCode(ctx context.Context, s *lambda.Settings, from source, held *claims) (code lambda.Code, err error) {
	if s.PackageType == lambda.Image {
		code, err = held.find(ctx, from.image)
	} else {
		code, err = held.add(ctx, from)
	}
	if err != nil {
		return code, err
	}
	code.SourceKMSKeyARN = from.key
	return code, r.checkCode(ctx, s, code)
}

// checkCode refuses code that cannot run with these settings and layers.
func (r *Registry) checkCode(ctx context.Context, s *lambda.Settings, code lambda.Code) error {
	total := code.Unpacked
	for _, l := range s.Layers {
		total += l.Code.Unpacked
	}
	if total > lambda.MaxUnzipped {
		return lambda.InvalidParameter("Function code combined with layers exceeds the maximum allowed size of %d bytes. The actual size is %d bytes.", lambda.MaxUnzipped, total)
	}
	return r.runtimes.Check(ctx, s, code)
}

// complete fills in the defaults that depend on the function or the machine.
func (r *Registry) complete(s *lambda.Settings, arn lambda.FunctionARN) {
	if s.Architecture == "" {
		s.Architecture = r.config.Architecture
	}
	if s.Logging.Group == "" {
		s.Logging.Group = lambda.DefaultLogGroup(arn.Name)
	}
	if s.Logging.Format == "JSON" {
		if s.Logging.ApplicationLevel == "" {
			s.Logging.ApplicationLevel = "INFO"
		}
		if s.Logging.SystemLevel == "" {
			s.Logging.SystemLevel = "INFO"
		}
	}
}

// checkSettings is the semantic validation, in the order in which AWS does it.
// Layers become those named, unless they are nil.
func (r *Registry) checkSettings(by lambda.Principal, region lambda.Region, s *lambda.Settings, layers []string, held *claims) (err error) {
	if err := checkEnvironment(s.Environment); err != nil {
		return err
	}
	if layers != nil {
		if s.Layers, err = r.resolveLayers(by, region, layers, held); err != nil {
			return err
		}
	}
	if s.PackageType == lambda.Image {
		if err := checkImageSettings(s); err != nil {
			return err
		}
	} else if s.Runtime == "" || s.Handler == "" {
		return lambda.InvalidParameter("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
	}
	if s.VPC != nil && (len(s.VPC.SubnetIDs) == 0) != (len(s.VPC.SecurityGroupIDs) == 0) {
		return lambda.InvalidParameter("SubnetIds and SecurityIds must coexist or be both empty list.")
	}
	if s.Logging.Format == "Text" && (s.Logging.ApplicationLevel != "" || s.Logging.SystemLevel != "") {
		return lambda.InvalidParameter(`LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat to "JSON" and try again.`)
	}
	return nil
}

// checkImageSettings refuses what a function with an image cannot have.
func checkImageSettings(s *lambda.Settings) error {
	if s.Runtime != "" || s.Handler != "" || len(s.Layers) > 0 {
		return lambda.InvalidParameter("Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image.")
	}
	if s.SnapStart == "PublishedVersions" {
		return lambda.InvalidParameter("SnapStart is not supported for functions with PackageType Image.")
	}
	settings, err := json.Marshal(s.Image)
	if err != nil {
		return err
	}
	if len(settings) > lambda.MaxImageSettings {
		return lambda.InvalidParameter("The ImageConfig has %d bytes; %d are allowed.", len(settings), lambda.MaxImageSettings)
	}
	return nil
}

// reserved are the variables that the platform sets.
var reserved = []string{
	"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
	"AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
	"AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
	"AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
	"AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_METADATA_API", "AWS_LAMBDA_METADATA_TOKEN",
}

func checkEnvironment(env map[string]string) error {
	var taken []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if slices.Contains(reserved, name) {
			taken = append(taken, name)
		}
		if strings.ContainsRune(env[name], 0) {
			return lambda.InvalidParameter("Lambda was unable to configure your environment variables because the value of %s contains a NUL character.", name)
		}
	}
	const unable = "Lambda was unable to configure your environment variables because the environment variables you have provided "
	if len(taken) > 0 {
		return lambda.InvalidParameter(unable+"contains reserved keys that are currently not supported for modification. Reserved keys used in this request: %s", strings.Join(taken, ", "))
	}
	if len(env) == 0 {
		return nil
	}
	var measured bytes.Buffer
	encoder := json.NewEncoder(&measured)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(env); err != nil {
		return err
	}
	if m := bytes.TrimSuffix(measured.Bytes(), []byte{'\n'}); len(m) > lambda.MaxEnvironment {
		return lambda.InvalidParameter(unable+"exceeded the 4KB limit. String measured: %s", m)
	}
	return nil
}
