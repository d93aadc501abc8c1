package handlers

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"kiln/test/kiln"
)

// TestSparesOfGVisor is TestSpares of one runtime of each family.
func TestSparesOfGVisor(t *testing.T) {
	t.Parallel()
	runsc := os.Getenv("KILN_RUNSC")
	if runsc == "" {
		t.Skip("KILN_RUNSC names no runsc")
	}
	families := map[string]bool{}
	testSpares(t, slices.DeleteFunc(installed(t), func(id string) bool {
		family := strings.TrimRight(id, "0123456789.x")
		defer func() { families[family] = true }()
		return families[family]
	}), "--driver", "gvisor", "--runsc", runsc)
}

// TestGVisor is what does not depend on the driver, in sandboxes with kernels of their
// own, for the one account that has them.
func TestGVisor(t *testing.T) {
	t.Parallel()
	runsc := os.Getenv("KILN_RUNSC")
	if runsc == "" {
		t.Skip("KILN_RUNSC names no runsc")
	}
	d := kiln.StartEnv(t, []string{"KILN_ACCOUNTS=000000000000.driver=gvisor"}, arguments("--driver", "linux", "--runsc", runsc)...)
	response, err := http.Get(d.URL + "/_kiln/health")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var health struct {
		Driver   string
		Accounts map[string]string `json:"account_drivers"`
	}
	if err := json.NewDecoder(response.Body).Decode(&health); err != nil || health.Driver != "linux" || health.Accounts["000000000000"] != "gvisor" {
		t.Errorf("health tells of %+v, %v", health, err)
	}
	tour := []string{"reuse", "error", "timeout", "exit", "size", "environment", "memory", "log", "sandbox"}
	for _, l := range languages(t, true) {
		if !slices.Contains([]string{"nodejs", "python", "go"}, l.name) {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			for _, b := range behaviours {
				if !slices.Contains(tour, b.name) || b.skips(l.name) {
					continue
				}
				t.Run(b.name, func(t *testing.T) {
					t.Parallel()
					b.test(t, l, d)
				})
			}
		})
	}
}
