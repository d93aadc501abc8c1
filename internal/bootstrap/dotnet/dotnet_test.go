package dotnet_test

import (
	"strings"
	"testing"

	"kiln/internal/bootstrap"
	"kiln/internal/bootstrap/dotnet"
	"kiln/internal/lambda"
)

func TestNeedsItsBaseImage(t *testing.T) {
	t.Parallel()
	c := bootstrap.New([]bootstrap.Family{dotnet.New()}, bootstrap.Config{Dir: t.TempDir()})
	const want = "The runtime dotnet8 needs its base image. Run: kiln runtime add dotnet8 --image "
	_, err := c.Resolve(t.Context(), "dotnet8")
	if e := lambda.AsError(err); e == nil || e.Code != "InvalidParameterValueException" || !strings.HasPrefix(e.Message, want) {
		t.Errorf("resolve: %v", err)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list.Entries) != 2 || !strings.HasPrefix(list.Entries[1].Missing, want) || list.Entries[1].Bundles {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestLaunch(t *testing.T) {
	t.Parallel()
	l := dotnet.New().Launch("dotnet8", bootstrap.Installation{}, bootstrap.Layout{Task: "/var/task", Opt: "/opt", Runtime: "/var/runtime", Lang: "/var/lang", Tmp: "/tmp"})
	if l.Path != "/var/runtime/bootstrap" || l.Dir != "/var/task" || l.OSOnly {
		t.Errorf("got %+v", l)
	}
	for name, want := range map[string]string{"DOTNET_ROOT": "/var/lang/bin", "SSL_CERT_FILE": "/var/runtime/empty-certificates.crt"} {
		if l.Defaults[name] != want {
			t.Errorf("%s is %q", name, l.Defaults[name])
		}
	}
	for name, want := range map[string]string{"LAMBDA_RUNTIME_NAME": "dotnet8", "AWS_EXECUTION_ENV": "AWS_Lambda_dotnet8", "LAMBDA_TASK_ROOT": "/var/task"} {
		if l.Reserved[name] != want {
			t.Errorf("%s is %q", name, l.Reserved[name])
		}
	}
}
