package bootstrap

import (
	"strings"
	"time"

	"kiln/internal/lambda"
)

// Support is a row of AWS's table of runtimes. Dates are ISO days; "" is none set.
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
type Support struct {
	ID          lambda.RuntimeID
	System      string // AL2023, AL2, AL1: the base that AWS runs it on
	Deprecated  string
	BlockCreate string // AWS refuses to create functions from this day
	BlockUpdate string
}

// Blocked tells whether AWS refuses new functions with this runtime at that time.
func (s Support) Blocked(at time.Time) bool {
	return s.BlockCreate != "" && s.BlockCreate <= at.UTC().Format(time.DateOnly)
}

// supports is AWS's table as of autumn 2026, supported runtimes first.
var supports = []Support{
	{"nodejs24.x", "AL2023", "2028-04-30", "2028-06-01", "2028-07-01"},
	{"nodejs22.x", "AL2023", "2027-04-30", "2027-06-01", "2027-07-01"},
	{"python3.14", "AL2023", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"python3.13", "AL2023", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"python3.12", "AL2023", "2028-10-31", "2028-11-30", "2029-01-10"},
	{"python3.11", "AL2", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"python3.10", "AL2", "2026-10-31", "2027-02-01", "2027-03-03"},
	{"java25", "AL2023", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"java21", "AL2023", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"java17.al2023", "AL2023", "", "", ""},
	{"java11.al2023", "AL2023", "", "", ""},
	{"java8.al2023", "AL2023", "", "", ""},
	{"java17", "AL2", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"java11", "AL2", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"java8.al2", "AL2", "2027-06-30", "2027-07-31", "2027-08-31"},
	{"dotnet10", "AL2023", "2028-11-14", "2028-12-14", "2029-01-15"},
	{"dotnet8", "AL2023", "2026-11-10", "2027-02-01", "2027-03-03"},
	{"ruby4.0", "AL2023", "2029-03-31", "2029-04-30", "2029-05-31"},
	{"ruby3.4", "AL2023", "2028-03-31", "2028-04-30", "2028-05-31"},
	{"ruby3.3", "AL2023", "2027-03-31", "2027-04-30", "2027-05-31"},
	{"provided.al2023", "AL2023", "2029-06-30", "2029-07-31", "2029-08-31"},
	{"provided.al2", "AL2", "2026-07-31", "2027-02-01", "2027-03-03"},
	{"nodejs20.x", "AL2023", "2026-04-30", "2027-02-01", "2027-03-03"},
	{"ruby3.2", "AL2", "2026-03-31", "2027-02-01", "2027-03-03"},
	{"python3.9", "AL2", "2025-12-15", "2027-02-01", "2027-03-03"},
	{"nodejs18.x", "AL2", "2025-09-01", "2027-02-01", "2027-03-03"},
	{"dotnet6", "AL2", "2024-12-20", "2027-02-01", "2027-03-03"},
	{"python3.8", "AL2", "2024-10-14", "2027-02-01", "2027-03-03"},
	{"nodejs16.x", "AL2", "2024-06-12", "2027-02-01", "2027-03-03"},
	{"java8", "AL1", "2024-01-08", "2024-02-08", "2027-03-03"},
	{"go1.x", "AL1", "2024-01-08", "2024-02-08", "2027-03-03"},
	{"provided", "AL1", "2024-01-08", "2024-02-08", "2027-03-03"},
	{"ruby2.7", "AL2", "2023-12-07", "2024-01-09", "2027-03-03"},
	{"nodejs14.x", "AL2", "2023-12-04", "2024-01-09", "2027-03-03"},
	{"python3.7", "AL1", "2023-12-04", "2024-01-09", "2027-03-03"},
	{"dotnetcore3.1", "AL2", "2023-04-03", "2023-04-03", "2023-05-03"},
	{"nodejs12.x", "AL2", "2023-03-31", "2023-03-31", "2023-04-30"},
	{"python3.6", "AL1", "2022-07-18", "2022-07-18", "2022-08-29"},
	{"dotnetcore2.1", "AL1", "2022-01-05", "2022-01-05", "2022-01-05"},
	{"nodejs10.x", "AL2", "2021-07-30", "2021-07-30", "2021-07-30"},
	{"ruby2.5", "AL1", "2021-07-30", "2021-07-30", "2021-07-30"},
	{"python2.7", "AL1", "2021-07-15", "2021-07-15", "2021-07-15"},
	{"nodejs8.10", "AL1", "2020-03-06", "2020-03-06", "2020-03-06"},
	{"nodejs4.3", "AL1", "2020-03-05", "2020-03-05", "2020-03-05"},
	{"nodejs4.3-edge", "AL1", "2020-03-05", "2020-03-05", "2020-03-05"},
	{"nodejs6.10", "AL1", "2019-08-12", "2019-08-12", "2019-08-12"},
	{"dotnetcore1.0", "AL1", "2019-06-27", "2019-06-27", "2019-06-27"},
	{"dotnetcore2.0", "AL1", "2019-05-30", "2019-05-30", "2019-05-30"},
	{"nodejs", "AL1", "2016-08-30", "2016-08-30", "2016-08-30"},
}

// Supports returns AWS's table of runtimes, supported ones first.
func Supports() []Support { return append([]Support(nil), supports...) }

// SupportOf finds the row of a runtime.
func SupportOf(id lambda.RuntimeID) (Support, bool) {
	for _, s := range supports {
		if s.ID == id {
			return s, true
		}
	}
	return Support{}, false
}

// unavailable says, in AWS's words where AWS has any, why an identifier that no
// family offers cannot be used.
func unavailable(id lambda.RuntimeID, at time.Time) error {
	s, known := SupportOf(id)
	switch {
	case !known:
		return lambda.InvalidParameter("Value %s at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [%s] or be a valid ARN",
			id, strings.Join(creatable(at), ", "))
	case s.Blocked(at):
		return lambda.InvalidParameter("The runtime parameter of %s is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions.", id)
	default:
		return lambda.NotBuilt("The runtime " + string(id))
	}
}

func creatable(at time.Time) (ids []string) {
	for _, s := range supports {
		if !s.Blocked(at) {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}
