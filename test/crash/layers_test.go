package crash

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"kiln/test/kiln"
)

// layerRounds of killing.
const layerRounds = 10

// layer is what its one client knows of a layer.
type layer struct {
	name     string
	program  string            // that each version brings, in bin
	versions map[int64]content // answered, by number
	last     int64             // number answered

	publishing *content // of an unanswered publication
	deleting   int64    // number of an unanswered deletion
}

// content of a layer version.
type content struct {
	zip  []byte
	says string // its program
}

// user is a client with two layers and a function that has versions of them.
type user struct {
	account string
	rand    *rand.Rand
	name    string
	layers  [2]*layer

	holds, maybe []used // layers of the function: answered, and asked for
	asked        bool
}

// used is a layer version in a function; it outlives the version.
type used struct {
	arn, program string
	content
}

// TestKillLayers kills a daemon whose clients publish, delete and use layers:
// what was answered holds, numbers are given once, and functions keep the layers
// that they have.
func TestKillLayers(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	account := kiln.Account()
	d := kiln.Start(t, "--account", account)
	c := &counter{}
	code := kiln.Bash(`answer="\"$(first 2>/dev/null) $(second 2>/dev/null)\""`)
	var users []*user
	for i := range 3 {
		u := &user{account: account, rand: rand.New(rand.NewPCG(seed, uint64(i))), name: fmt.Sprint("user-", i)}
		for j, program := range []string{"first", "second"} {
			u.layers[j] = &layer{name: u.name + "-" + program, program: program, versions: map[int64]content{}}
		}
		d.Create(u.name, "provided.al2023", "x", code, nil)
		users = append(users, u)
	}
	for round := range layerRounds {
		life := rand.N(longestLife)
		ctx, end := context.WithCancel(context.Background())
		var clients sync.WaitGroup
		for _, u := range users {
			clients.Go(func() {
				for ctx.Err() == nil {
					if err := u.change(ctx, d.Client(), c); err != nil {
						if problem := answered(err); problem != nil && !strings.Contains(problem.Error(), "ResourceConflictException") {
							t.Errorf("%s: %v", u.name, problem)
						} else if problem != nil { // the change before is still being settled
							u.asked = false
							continue
						}
						return // the daemon is gone, and what was asked last stays open
					}
				}
			})
		}
		time.Sleep(life) // not a wait: the moment of death is to be random
		d.Kill()
		end()
		clients.Wait()
		d.NothingLives()
		d.Start()
		for _, u := range users {
			u.verify(t, d)
		}
		if t.Failed() {
			t.Fatalf("round %d, killed after %v; log of kiln:\n%s", round, life, d.Log)
		}
	}

	packages := map[string]bool{digest(code): true}
	for _, u := range users {
		for _, l := range u.layers {
			for _, v := range l.versions {
				packages[digest(v.zip)] = true
			}
		}
		for _, l := range u.holds {
			packages[digest(l.zip)] = true
		}
	}
	sweeps(t, d, packages, func() {
		for _, u := range users {
			u.verify(t, d)
		}
	})
	d.NothingLeft()
	t.Logf("%d layer versions were begun", c.n)
}

// change does one thing, and notes what it asks for before it asks.
func (u *user) change(ctx context.Context, client *lambda.Client, c *counter) error {
	l := u.layers[u.rand.IntN(2)]
	switch what := u.rand.IntN(6); {
	case what < 2 || len(l.versions) == 0:
		says := fmt.Sprint("version ", c.next())
		padding := make([]byte, []int{0, 10_000, 2_500_000}[u.rand.IntN(3)])
		for i := range padding {
			padding[i] = byte(u.rand.Uint32())
		}
		l.publishing = &content{kiln.Zip(map[string]string{"bin/" + l.program + "!": "#!/bin/sh\necho " + says, "padding": string(padding)}), says}
		out, err := client.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{LayerName: &l.name, Content: &types.LayerVersionContentInput{ZipFile: l.publishing.zip}})
		if err != nil {
			return err
		}
		if out.Version != l.last+1 {
			return wrongAnswer(fmt.Sprintf("after version %d of %s came %d", l.last, l.name, out.Version))
		}
		l.last, l.versions[out.Version], l.publishing = out.Version, *l.publishing, nil
	case what < 4:
		var next []used
		arns := []string{}
		for _, l := range u.layers {
			numbers := slices.Sorted(maps.Keys(l.versions))
			if len(numbers) == 0 || u.rand.IntN(4) == 0 {
				continue
			}
			number := numbers[u.rand.IntN(len(numbers))]
			arns = append(arns, fmt.Sprintf("arn:aws:lambda:us-east-1:%s:layer:%s:%d", u.account, l.name, number))
			next = append(next, used{arns[len(arns)-1], l.program, l.versions[number]})
		}
		u.maybe, u.asked = next, true
		if _, err := client.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{FunctionName: &u.name, Layers: arns}); err != nil {
			return err
		}
		u.holds, u.asked = next, false
	default:
		numbers := slices.Sorted(maps.Keys(l.versions))
		l.deleting = numbers[u.rand.IntN(len(numbers))]
		if _, err := client.DeleteLayerVersion(ctx, &lambda.DeleteLayerVersionInput{LayerName: &l.name, VersionNumber: &l.deleting}); err != nil {
			return err
		}
		delete(l.versions, l.deleting)
		l.deleting = 0
	}
	return nil
}

// verify looks at everything after a restart.
func (u *user) verify(t *testing.T, d *kiln.Daemon) {
	t.Helper()
	ctx, client := context.Background(), d.Client()
	for _, l := range u.layers {
		found := map[int64]string{} // the links to their content
		for pages := lambda.NewListLayerVersionsPaginator(client, &lambda.ListLayerVersionsInput{LayerName: &l.name}); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range page.LayerVersions {
				out, err := client.GetLayerVersion(ctx, &lambda.GetLayerVersionInput{LayerName: &l.name, VersionNumber: &v.Version})
				if err != nil {
					t.Fatal(err)
				}
				found[v.Version] = *out.Content.Location
			}
		}
		if _, there := found[l.last+1]; there && l.publishing != nil {
			l.last++
			l.versions[l.last] = *l.publishing
		}
		if _, there := found[l.deleting]; !there {
			delete(l.versions, l.deleting)
		}
		l.publishing, l.deleting = nil, 0
		if got, want := slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(l.versions)); !slices.Equal(got, want) {
			t.Errorf("%s has the versions %v, want %v", l.name, got, want)
			return
		}
		for number, link := range found {
			r, err := http.Get(link)
			if err != nil {
				t.Fatal(err)
			}
			zip, err := io.ReadAll(r.Body)
			if err := r.Body.Close(); err != nil {
				t.Error(err)
			}
			if err != nil || !bytes.Equal(zip, l.versions[number].zip) {
				t.Errorf("version %d of %s is not what was published: %s, %v", number, l.name, r.Status, err)
			}
		}
	}

	var is *lambda.GetFunctionConfigurationOutput
	kiln.Eventually(t, settlePatience, func() (err error) {
		is, err = client.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &u.name})
		if err == nil && !settled(is.State, is.LastUpdateStatus) {
			err = fmt.Errorf("%s stays %s, %s", u.name, is.State, is.LastUpdateStatus)
		}
		return err
	})
	arns := func(list []used) (names []string) {
		for _, l := range list {
			names = append(names, l.arn)
		}
		return names
	}
	var got []string
	for _, l := range is.Layers {
		got = append(got, *l.Arn)
	}
	switch {
	case slices.Equal(got, arns(u.holds)):
	case u.asked && slices.Equal(got, arns(u.maybe)):
		u.holds = u.maybe
	default:
		t.Errorf("%s has the layers %v; %v were answered, %v asked for: %v", u.name, got, arns(u.holds), arns(u.maybe), u.asked)
		return
	}
	u.maybe, u.asked = nil, false
	answer, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &u.name, Payload: []byte("1")})
	if err != nil {
		t.Errorf("invoke %s: %v", u.name, err)
		return
	}
	says := map[string]string{}
	for _, l := range u.holds {
		says[l.program] = l.says
	}
	if want := fmt.Sprintf("%q", says["first"]+" "+says["second"]); string(answer.Payload) != want {
		t.Errorf("%s with %v answers %s (%s), want %s", u.name, got, answer.Payload, aws.ToString(answer.FunctionError), want)
	}
}
