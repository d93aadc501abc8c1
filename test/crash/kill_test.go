package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"

	"kiln/internal/state/jetstream"
	"kiln/test/kiln"
)

const (
	// rounds of killing, unless KILN_SOAK says otherwise.
	rounds = 15
	// functions that are changed at once, each by one client.
	functions = 4
	// longestLife of a daemon between the first change and its end.
	longestLife = 400 * time.Millisecond
	// settlePatience bounds the wait for Active and Successful.
	settlePatience = 20 * time.Second
)

// form is what a client made a function of. Its number is unique and tells it
// from every other form of every function.
type form struct {
	number      int
	description string
	code        []byte
	says        string // begins an invocation's answer; the description follows
}

// function is what its one client knows of it.
type function struct {
	name string
	rand *rand.Rand

	holds    *form  // what was answered last; nil: it does not exist
	revision string // of holds once it was settled; "" if nobody has seen that
	maybe    *form  // what an unanswered change would have made of it
	asked    bool   // there is an unanswered change
}

func TestKill(t *testing.T) {
	t.Parallel()
	n := rounds
	if soak := os.Getenv("KILN_SOAK"); soak != "" {
		var err error
		if n, err = strconv.Atoi(soak); err != nil {
			t.Fatalf("KILN_SOAK: %v", err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := kiln.Start(t, "--account", kiln.Account())
	c := &counter{}
	var list []*function
	for i := range functions {
		list = append(list, &function{name: fmt.Sprintf("function-%d", i), rand: rand.New(rand.NewPCG(seed, uint64(i)+1))})
	}
	for round := range n {
		life := time.Duration(random.Int64N(int64(longestLife)))
		if random.IntN(8) == 0 {
			life = 0 // within the first requests
		}
		ctx, end := context.WithCancel(context.Background())
		var clients sync.WaitGroup
		for _, f := range list {
			clients.Go(func() { f.use(ctx, t, d, c) })
		}
		time.Sleep(life) // not a wait: the moment of death is to be random
		d.Kill()
		end()
		clients.Wait()
		d.NothingLives()

		d.Start()
		if left := d.Cgroups(); len(left) > 0 {
			t.Errorf("a restart left cgroups of the killed daemon: %s", strings.Join(left, " "))
		}
		for _, f := range list {
			f.verify(t, d)
		}
		if t.Failed() {
			t.Fatalf("round %d, killed after %v; log of kiln:\n%s", round, life, d.Log)
		}
	}
	packages := map[string]bool{}
	for _, f := range list {
		if f.holds != nil {
			packages[digest(f.holds.code)] = true
		}
	}
	sweeps(t, d, packages, func() {
		for _, f := range list {
			f.verify(t, d)
		}
	})
	d.NothingLeft()
	if log := d.Log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", log)
	}
	t.Logf("%d changes were begun", c.n)
}

// counter numbers forms.
type counter struct {
	mu sync.Mutex
	n  int // guarded by mu
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// use changes and invokes the function until the daemon is gone. A client reads
// its own writes at once.
func (f *function) use(ctx context.Context, t *testing.T, d *kiln.Daemon, c *counter) {
	client := d.Client()
	for ctx.Err() == nil {
		err := f.change(ctx, client, c)
		var refused *types.ResourceConflictException
		switch {
		case errors.As(err, &refused): // the change before is still being settled
			f.asked = false
			continue
		case err != nil:
			if problem := answered(err); problem != nil {
				t.Errorf("%s: %v", f.name, problem)
			}
			return // the daemon is gone, and what was asked last stays open
		}
		if f.asked {
			f.holds, f.maybe, f.asked, f.revision = f.maybe, nil, false, ""
		}
		if err := f.read(ctx, client); err != nil {
			if problem := answered(err); problem != nil {
				t.Errorf("%s: %v", f.name, problem)
			}
			return
		}
	}
}

// answered returns the error if the daemon gave it, and nil if the connection broke.
func answered(err error) error {
	var api interface{ ErrorCode() string }
	var wrong wrongAnswer
	if errors.As(err, &api) || errors.As(err, &wrong) {
		return err
	}
	return nil
}

// wrongAnswer is an answer that contradicts what the client knows.
type wrongAnswer string

func (w wrongAnswer) Error() string { return string(w) }

// change does one thing. It notes what it asks for before it asks.
func (f *function) change(ctx context.Context, client *lambda.Client, c *counter) error {
	ask := func(to *form) { f.maybe, f.asked = to, true }
	if f.holds == nil {
		next := f.newForm(c.next())
		ask(next)
		_, err := client.CreateFunction(ctx, &lambda.CreateFunctionInput{
			FunctionName: &f.name, Runtime: types.RuntimeProvidedal2023, Handler: aws.String("x"), Role: aws.String(kiln.Role),
			Description: &next.description, Environment: variables(next.description),
			Code: &types.FunctionCode{ZipFile: next.code},
			Tags: map[string]string{"of": f.name},
		})
		return err
	}
	next := *f.holds
	next.number = c.next()
	switch f.rand.IntN(8) {
	case 0, 1, 2:
		other := f.newForm(next.number)
		next.code, next.says = other.code, other.says
		ask(&next)
		_, err := client.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: &f.name, ZipFile: next.code})
		return err
	case 3, 4:
		next.description = description(next.number)
		ask(&next)
		_, err := client.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{
			FunctionName: &f.name, Description: &next.description, Environment: variables(next.description)})
		return err
	case 5:
		ask(nil)
		_, err := client.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &f.name})
		return err
	default:
		_, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &f.name, Payload: []byte("1")})
		return err
	}
}

func description(number int) string { return fmt.Sprintf("form %d", number) }

// newForm makes a form whose package has any size up to three of the engine's chunks.
func (f *function) newForm(number int) *form {
	padding := make([]byte, []int{0, 0, 10_000, 2_500_000}[f.rand.IntN(4)])
	for i := range padding {
		padding[i] = byte(f.rand.Uint32())
	}
	says := fmt.Sprintf("code %d", number)
	return &form{number: number, description: description(number), says: says, code: kiln.Zip(map[string]string{
		"bootstrap!": kiln.Bootstrap(`answer="\"` + says + `, $FORM\""`),
		"padding":    string(padding),
	})}
}

// variables has the description once more, sealed.
func variables(description string) *types.Environment {
	return &types.Environment{Variables: map[string]string{"FORM": description}}
}

// read compares what the API shows with what was answered.
func (f *function) read(ctx context.Context, client *lambda.Client) error {
	out, err := client.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &f.name})
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		if f.holds != nil {
			return wrongAnswer(fmt.Sprintf("form %d was answered and is not there", f.holds.number))
		}
		return nil
	}
	if err != nil {
		return err
	}
	if f.holds == nil {
		return wrongAnswer("it was deleted and is there")
	}
	if !f.holds.matches(out.Description, out.CodeSha256, out.Environment) {
		return wrongAnswer(fmt.Sprintf("form %d was answered, %s with code %s is there", f.holds.number, *out.Description, *out.CodeSha256))
	}
	if settled(out.State, out.LastUpdateStatus) {
		if f.revision != "" && f.revision != *out.RevisionId {
			return wrongAnswer("its revision changed by itself")
		}
		f.revision = *out.RevisionId
	}
	return nil
}

func (f *form) matches(description, sha *string, environment *types.EnvironmentResponse) bool {
	return f != nil && aws.ToString(description) == f.description && aws.ToString(sha) == f.sha256() &&
		environment != nil && environment.Variables["FORM"] == f.description
}

func (f *form) sha256() string {
	sum := sha256.Sum256(f.code)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func settled(s types.State, u types.LastUpdateStatus) bool {
	return s == types.StateActive && u == types.LastUpdateStatusSuccessful
}

// verify looks at the function after a restart: what was answered holds, what was
// not answered is whole or absent, and every way of looking agrees.
func (f *function) verify(t *testing.T, d *kiln.Daemon) {
	t.Helper()
	ctx, client := context.Background(), d.Client()
	var is *lambda.GetFunctionOutput
	kiln.Eventually(t, settlePatience, func() (err error) {
		is, err = client.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &f.name})
		var missing *types.ResourceNotFoundException
		switch {
		case errors.As(err, &missing):
			is = nil
			return nil
		case err != nil:
			return err
		case !settled(is.Configuration.State, is.Configuration.LastUpdateStatus):
			return fmt.Errorf("%s stays %s, %s", f.name, is.Configuration.State, is.Configuration.LastUpdateStatus)
		}
		return nil
	})
	before := f.describe()
	switch {
	case is == nil && f.holds == nil:
	case is == nil && f.asked && f.maybe == nil:
		f.holds = nil
	case is == nil:
		t.Errorf("%s is not there; %s", f.name, before)
		return
	case f.holds.is(is):
		if f.revision != "" && f.revision != *is.Configuration.RevisionId {
			t.Errorf("%s has revision %s after the restart, and had %s", f.name, *is.Configuration.RevisionId, f.revision)
		}
	case f.asked && f.maybe.is(is):
		f.holds = f.maybe
	default:
		t.Errorf("%s is %q with code %s; %s", f.name, *is.Configuration.Description, *is.Configuration.CodeSha256, before)
		return
	}
	f.maybe, f.asked, f.revision = nil, false, ""
	if f.holds != nil {
		f.revision = *is.Configuration.RevisionId
	}
	f.agrees(t, client, is)
}

func (f *form) is(got *lambda.GetFunctionOutput) bool {
	return f.matches(got.Configuration.Description, got.Configuration.CodeSha256, got.Configuration.Environment)
}

func (f *function) describe() string {
	show := func(f *form) string {
		if f == nil {
			return "nothing"
		}
		return fmt.Sprintf("form %d (%s, code %s)", f.number, f.description, f.sha256())
	}
	if !f.asked {
		return show(f.holds) + " was answered"
	}
	return show(f.holds) + " was answered, " + show(f.maybe) + " asked for"
}

// agrees checks that the list, the package and an invocation tell the same.
func (f *function) agrees(t *testing.T, client *lambda.Client, is *lambda.GetFunctionOutput) {
	t.Helper()
	ctx := context.Background()
	list, err := client.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.Functions, func(c types.FunctionConfiguration) bool { return *c.FunctionName == f.name })
	answer, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &f.name, Payload: []byte("1")})
	if f.holds == nil {
		var missing *types.ResourceNotFoundException
		if i >= 0 || !errors.As(err, &missing) {
			t.Errorf("%s does not exist; in the list at %d, invoked with %v", f.name, i, err)
		}
		return
	}
	if i < 0 {
		t.Errorf("%s is not in the list", f.name)
	} else if c := list.Functions[i]; !f.holds.matches(c.Description, c.CodeSha256, c.Environment) || *c.RevisionId != f.revision {
		t.Errorf("the list has %s as %q with code %s, revision %s", f.name, *c.Description, *c.CodeSha256, *c.RevisionId)
	}
	if is.Tags["of"] != f.name {
		t.Errorf("%s has tags %v", f.name, is.Tags)
	}
	if err != nil {
		t.Errorf("invoke %s: %v", f.name, err)
	} else if want := `"` + f.holds.says + ", " + f.holds.description + `"`; string(answer.Payload) != want {
		t.Errorf("%s answers %s, want %s", f.name, answer.Payload, want)
	}
	r, err := http.Get(*is.Code.Location)
	if err != nil {
		t.Errorf("get the code of %s: %v", f.name, err)
		return
	}
	defer r.Body.Close()
	if code, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(code, f.holds.code) {
		t.Errorf("the code of %s is not what was uploaded: %s, %d bytes, %v", f.name, r.Status, len(code), err)
	}
}

// sweeps checks that packages that nothing uses are gone, from the store and
// from the cache. They are swept after a start, beside everything else, so that a
// daemon that is stopped early leaves some to the next.
func sweeps(t *testing.T, d *kiln.Daemon, packages map[string]bool, verify func()) {
	t.Helper()
	used := slices.AppendSeq([]string{}, maps.Keys(packages))
	slices.Sort(used)
	const starts = 5
	var difference string
	for range starts {
		d.Stop()
		cached := []string{}
		entries, err := os.ReadDir(filepath.Join(d.Data, "code"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "merged-") {
				cached = append(cached, e.Name())
			}
		}
		slices.Sort(cached)
		difference = cmp.Diff(used, stored(t, d.Data)) + cmp.Diff(used, cached)
		if difference == "" {
			return
		}
		d.Start()
		verify()
	}
	d.Stop()
	t.Errorf("packages in use (-) and kept (+):\n%s", difference)
}

func digest(zip []byte) string {
	sum := sha256.Sum256(zip)
	return hex.EncodeToString(sum[:])
}

// stored lists the packages of a data directory that no daemon uses.
func stored(t *testing.T, data string) []string {
	t.Helper()
	engine := jetstream.New(jetstream.Config{Dir: data, Node: "test"})
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	found, err := engine.Blob().Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys := append([]string{}, found...)
	slices.Sort(keys)
	return keys
}
