package operator

import (
	"net/http"
	"slices"
	"time"

	"kiln/internal/lambda"
)

// Top is what Kiln does at one moment. Counts are since it started.
type Top struct {
	At time.Time `json:"at"`
	// Functions are those that have, or had, an environment.
	Functions []TopFunction `json:"functions"`
	Machine   *Machine      `json:"machine,omitempty"` // for whoever runs Kiln
}

// Machine is what the machine has.
type Machine struct {
	MemoryBudget int64 `json:"memory_budget_bytes"`    // that all environments may hold
	Available    int64 `json:"memory_available_bytes"` // that nothing holds
	Spares       int   `json:"spares"`                 // runtimes that wait for a function
	SpareBytes   int64 `json:"spare_bytes"`
}

// TopFunction is what one function does.
type TopFunction struct {
	Account      lambda.AccountID    `json:"account"`
	Region       lambda.Region       `json:"region"`
	Name         lambda.FunctionName `json:"name"`
	Environments map[string]int64    `json:"environments"` // by state
	Provisioned  int                 `json:"provisioned"`  // of those, kept ready
	Memory       int64               `json:"memory_bytes"`
	Invocations  int64               `json:"invocations"`
	Errors       int64               `json:"errors"`
	Throttles    int64               `json:"throttles"`
	Colds        int64               `json:"cold_starts"` // invocations that waited for an init
	Durations    []TopDuration       `json:"durations"`   // ascending
}

// TopDuration is how many invocations took that long at most, and longer than the one
// before says.
type TopDuration struct {
	UpTo  float64 `json:"up_to_ms"`
	Count int64   `json:"count"`
}

// top shows what the caller's account does, and all to whoever runs Kiln.
func (d *door) top(w http.ResponseWriter, r *http.Request) {
	d.act(w, r, "Watch", false, nil, func(c *call) (any, error) {
		account, err := c.account(r.URL.Query().Get("account"))
		if err == nil {
			err = c.may(lambda.FunctionARN{Scope: lambda.Scope{Account: account, Region: c.caller.Scope.Region}, Name: "*"})
		}
		if err != nil {
			return nil, err
		}
		t := d.Top()
		if !c.operates() {
			t.Machine = nil
		}
		if r.URL.Query().Get("account") != "" || !c.operates() {
			t.Functions = slices.DeleteFunc(t.Functions, func(f TopFunction) bool { return f.Account != account })
		}
		return t, nil
	})
}
