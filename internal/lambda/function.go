package lambda

import "time"

// Architecture is an instruction set in AWS's words.
type Architecture string

// The two architectures of Lambda.
const (
	X86_64 Architecture = "x86_64"
	ARM64  Architecture = "arm64"
)

// RuntimeID is a runtime identifier, such as nodejs22.x.
type RuntimeID string

// PackageType says how the code came.
type PackageType string

// Zip is a deployment package; Image a container image.
const (
	Zip   PackageType = "Zip"
	Image PackageType = "Image"
)

// FunctionState is a function's State.
type FunctionState string

// The states that a zip function passes through.
const (
	Pending FunctionState = "Pending"
	Active  FunctionState = "Active"
	Failed  FunctionState = "Failed"
)

// UpdateStatus is a function's LastUpdateStatus.
type UpdateStatus string

// The update states; a function being created has none.
const (
	UpdateSuccessful UpdateStatus = "Successful"
	UpdateInProgress UpdateStatus = "InProgress"
	UpdateFailed     UpdateStatus = "Failed"
)

// Code names a deployment package, of a function or a layer, or an image, by content.
type Code struct {
	SHA256   string // as CodeSha256 shows it: base64 of the digest of the zip; of an image, its digest in hexadecimal
	Size     int64  // bytes of the zip; 0 for an image
	Unpacked int64  // bytes of its files; 0 for an image
	// Of an image: the reference that was given, and the one with the digest that
	// it led to then.
	ImageURI, ResolvedImageURI string
	// SourceKMSKeyARN is the key that a zip was to be encrypted with: kept and shown.
	SourceKMSKeyARN string `json:",omitempty"`
}

// IsImage tells an image from a deployment package.
func (c Code) IsImage() bool { return c.ResolvedImageURI != "" }

// S3Object names a deployment package in S3.
type S3Object struct {
	Account AccountID // of what is made of it
	Region  Region    // of that; on AWS the bucket must be there
	Bucket  string
	Key     string
	Version string // "" for the newest
}

// Settings are what a user configures of a function and what a published
// version freezes.
type Settings struct {
	PackageType      PackageType
	Runtime          RuntimeID
	Handler          string
	Role             string
	Description      string
	Timeout          time.Duration // whole seconds
	MemoryMB         int
	EphemeralMB      int
	Architecture     Architecture
	Environment      map[string]string // nil: none was given
	KMSKeyARN        string
	TracingMode      string // PassThrough or Active
	DeadLetterTarget string
	Logging          Logging
	SnapStart        string // None or PublishedVersions
	VPC              *VPC
	FileSystems      []FileSystem
	Layers           []Layer      // in the order in which they are merged
	Image            *ImageConfig // nil: none was given
}

// Logging is a function's LoggingConfig.
type Logging struct {
	Format           string // Text or JSON
	ApplicationLevel string // JSON only
	SystemLevel      string // JSON only
	Group            string
}

// DefaultLogGroup is where a function logs unless it is configured otherwise.
func DefaultLogGroup(name FunctionName) string { return "/aws/lambda/" + string(name) }

// VPC is stored and returned; Kiln has no VPCs.
type VPC struct {
	SubnetIDs        []string
	SecurityGroupIDs []string
	IPv6DualStack    bool
}

// FileSystem is stored and returned; Kiln mounts none.
type FileSystem struct {
	ARN            string
	LocalMountPath string
}

// Function is one version of a function as the registry keeps it. It is
// immutable: a change makes a new one.
type Function struct {
	ARN      FunctionARN // unqualified
	Version  Qualifier   // $LATEST or a number
	Revision RevisionID
	Settings Settings
	Code     Code
	Tags     map[string]string
	Modified time.Time

	State        FunctionState
	UpdateStatus UpdateStatus // "" while it is being created
	Reason       string       // of State or UpdateStatus, when not settled
	ReasonCode   string

	// Build changes whenever code or configuration that an environment sees
	// changes: environments of an earlier build serve no later invocation.
	Build string
}

// VersionARN names the version, $LATEST too.
func (f *Function) VersionARN() FunctionARN { return f.ARN.Qualified(f.Version) }

// ID names what a pool of environments runs: one build of one version.
func (f *Function) ID() string { return f.VersionARN().String() + "@" + f.Build }
