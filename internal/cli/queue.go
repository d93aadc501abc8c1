package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"kiln/internal/front/operator"
	"kiln/internal/invoke/async"
	"kiln/internal/lambda"
)

type queue struct {
	List    queueList    `cmd:"" default:"withargs" help:"Show the functions whose events wait (what kiln queue does)."`
	Show    queueShow    `cmd:"" help:"Show single events that wait for a function, without their payloads."`
	Purge   queuePurge   `cmd:"" help:"Drop what waits for a function."`
	Redrive queueRedrive `cmd:"" help:"Have parked events told anew to destinations and dead-letter queues."`
}

const queuePath = "/_kiln/queue"

type queueList struct {
	remote
	Account string `placeholder:"ID" help:"Account to show; default your own, or all to whoever runs Kiln."`
	Limit   int    `default:"50" placeholder:"N" help:"Functions to show, those with the most events first; default 50."`
}

func (q queueList) Run(ctx context.Context, s *streams) error {
	if q.Limit < 1 || q.Limit > operator.MaxQueueDetails {
		return fmt.Errorf("--limit %d is not possible; use 1 to %d", q.Limit, operator.MaxQueueDetails)
	}
	c, err := q.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	list, err := c.queues(ctx, q.Account, q.Limit)
	if err != nil {
		return err
	}
	shown := list[:min(q.Limit, len(list))]
	if q.JSON {
		return writeJSON(s.out, shown)
	}
	if len(list) == 0 {
		fmt.Fprintln(s.out, "No events wait.")
		return nil
	}
	several := slices.ContainsFunc(list, func(f async.Waiting) bool { return f.Account != list[0].Account || f.Region != list[0].Region })
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FUNCTION\tWAITING\tRUNNING\tLATER\tNEXT\tPARKED\tSIZE\tOLDEST\tLAST ERROR")
	for _, f := range shown {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%d\t%s\t%s\t%s\n", called(f, several), f.Due, f.Running, f.Later, in(f.Next), f.Parked, bytesOf(f.Bytes), ago(f.Oldest), first(plain(f.Error), "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if rest := list[len(shown):]; len(rest) > 0 {
		events := int64(0)
		for _, f := range rest {
			events += f.Events()
		}
		fmt.Fprintf(s.out, "And %d events of %d more functions: see --limit.\n", events, len(rest))
	}
	if slices.ContainsFunc(list, func(f async.Waiting) bool { return f.Parked > 0 }) {
		fmt.Fprintln(s.out, "\nWhat is parked could not be told to its destination or dead-letter queue. Mend the cause, then: kiln queue redrive FUNCTION")
	}
	return nil
}

// queues is what waits, the most first.
func (c *client) queues(ctx context.Context, account string, details int) ([]async.Waiting, error) {
	var list operator.QueueList
	err := c.get(ctx, queuePath, of(account, "details", details), &list)
	return list.Functions, c.explain(err)
}

// of is the query of a request about an account, with a number.
func of(account, name string, n int) url.Values {
	query := url.Values{name: {strconv.Itoa(n)}}
	if account != "" {
		query.Set("account", account)
	}
	return query
}

// called is how a function is named among others.
func called(f async.Waiting, several bool) string {
	if several {
		return fmt.Sprintf("%s/%s/%s", f.Account, f.Region, f.Name)
	}
	return string(f.Name)
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return max(0, time.Since(t)).Round(time.Second).String()
}

func in(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return max(0, time.Until(t)).Round(time.Second).String()
}

// plain is one line of text from a function, which may hold what terminals obey.
func plain(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
}

type queueShow struct {
	remote
	Function string `arg:"" help:"Name or ARN of the function."`
	Account  string `placeholder:"ID" help:"Account whose function it is; default your own."`
	Limit    int    `default:"20" placeholder:"N" help:"Events to show, up to 50; default 20."`
}

func (q queueShow) Run(ctx context.Context, s *streams) error {
	if q.Limit < 1 || q.Limit > operator.MaxQueueEvents {
		return fmt.Errorf("--limit %d is not possible; use 1 to %d", q.Limit, operator.MaxQueueEvents)
	}
	c, err := q.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	all, err := c.queue(ctx, q.Function, q.Account, q.Limit)
	if err != nil {
		return err
	}
	if q.JSON {
		return writeJSON(s.out, all)
	}
	if len(all.Events) == 0 {
		fmt.Fprintf(s.out, "No events wait for %s.\n", all.Name)
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUEST\tQUALIFIER\tSTATE\tAGE\tSIZE\tINVOKED\tNEXT\tENDED\tNOT TOLD\tLAST ERROR")
	for _, e := range all.Events {
		var untold []string
		for _, to := range e.Untold {
			untold = append(untold, string(to))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d B\t%d\t%s\t%s\t%s\t%s\n", first(string(e.ID), "-"), first(string(e.Qualifier), "-"), e.State, ago(e.Accepted), e.Bytes, e.Invoked, in(e.Next),
			first(string(e.Condition), "-"), first(strings.Join(untold, ", "), "-"), first(plain(e.Error), "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := all.Waiting.Events() - int64(len(all.Events)); more > 0 {
		fmt.Fprintf(s.out, "And %d more.\n", more)
	}
	return nil
}

// queue is what waits for a function, with up to so many events.
func (c *client) queue(ctx context.Context, function, account string, events int) (all operator.QueueEvents, err error) {
	err = c.get(ctx, queuePath+"/"+url.PathEscape(function), of(account, "limit", events), &all)
	return all, c.explain(err)
}

// queueChange are the flags of the commands that change what waits.
type queueChange struct {
	remote
	Function string `arg:"" optional:"" help:"Name or ARN of the function."`
	All      bool   `help:"Of all functions that kiln queue shows."`
	Account  string `placeholder:"ID" help:"Account whose functions they are; default your own, or with --all all to whoever runs Kiln."`
	Yes      bool   `short:"y" help:"Do not ask."`
}

// begin connects, and asks what waits for the functions that are meant.
func (q queueChange) begin(ctx context.Context, s *streams) (c *client, list []async.Waiting, err error) {
	if c, err = q.connect(ctx, s.getenv); err != nil {
		return nil, nil, err
	}
	if q.All == (q.Function != "") {
		return nil, nil, errors.New("name a function, or say --all")
	}
	if q.All {
		list, err = c.queues(ctx, q.Account, 0)
		return c, list, err
	}
	one, err := c.queue(ctx, q.Function, q.Account, 0)
	return c, []async.Waiting{one.Waiting}, err
}

// confirm asks at a terminal; elsewhere it has to be said beforehand.
func (q queueChange) confirm(s *streams, question string) (bool, error) {
	if q.Yes {
		return true, nil
	}
	if !terminal(s.in) {
		return false, errors.New("nobody can be asked here: say --yes")
	}
	fmt.Fprintf(s.err, "%s [y/N] ", question)
	answer := ""
	_, _ = fmt.Fscanln(s.in, &answer) // an empty line is no
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		fmt.Fprintln(s.err, "Nothing was changed.")
		return false, nil
	}
	return true, nil
}

// change sends a request about a function's queue, in the function's region.
func (c *client) change(ctx context.Context, method string, f async.Waiting, query url.Values, did any) error {
	there := *c
	there.aws.Region = string(f.Region)
	query.Set("account", string(f.Account))
	return c.explain(there.ask(ctx, method, queuePath+"/"+url.PathEscape(string(f.Name))+"?"+query.Encode(), nil, did))
}

type queuePurge struct {
	queueChange
	Parked bool `help:"Only what is parked."`
}

// purgedQueues is what was dropped.
type purgedQueues struct {
	Functions int `json:"functions"`
	async.Purged
}

func (q queuePurge) Run(ctx context.Context, s *streams) error {
	c, list, err := q.begin(ctx, s)
	if err != nil {
		return err
	}
	waits, parked := int64(0), int64(0)
	list = slices.DeleteFunc(list, func(f async.Waiting) bool { return f.Parked == 0 && (q.Parked || f.Due+f.Later == 0) })
	for _, f := range list {
		parked += f.Parked
		if !q.Parked {
			waits += f.Due + f.Later
		}
	}
	var did purgedQueues
	if len(list) > 0 {
		yes, err := q.confirm(s, fmt.Sprintf("Drop %s and %s of %s? They cannot be brought back.", count(waits, "event that waits", "events that wait"), count(parked, "that is parked", "that are parked"), whom(list)))
		if !yes {
			return err
		}
		p := startProgress(s.err)
		defer p.end()
		for i, f := range list {
			p.set(fmt.Sprintf("%d of %d functions, %d events dropped", i, len(list), did.Waited+did.Purged.Parked))
			var one async.Purged
			if err := c.change(ctx, http.MethodDelete, f, url.Values{"parked": {strconv.FormatBool(q.Parked)}}, &one); err != nil {
				return fmt.Errorf("%w (%s dropped before)", err, count(did.Waited+did.Purged.Parked, "event was", "events were"))
			}
			did.Functions++
			did.Waited, did.Purged.Parked, did.Running = did.Waited+one.Waited, did.Purged.Parked+one.Parked, did.Running+one.Running
		}
		p.end()
	}
	if q.JSON {
		return writeJSON(s.out, did)
	}
	if did.Functions == 0 {
		fmt.Fprintln(s.out, "There is nothing to drop.")
		return nil
	}
	fmt.Fprintf(s.out, "Dropped %s and %s, of %s.\n", count(did.Waited, "event that waited", "events that waited"), count(did.Purged.Parked, "that was parked", "that were parked"), whom(list))
	if did.Running > 0 && !q.Parked {
		fmt.Fprintf(s.out, "%s; what fails is not tried again.\n", count(did.Running, "event runs on", "events run on"))
	}
	return nil
}

type queueRedrive struct{ queueChange }

// redrivenQueues is what was redriven.
type redrivenQueues struct {
	Functions int `json:"functions"`
	async.Redriven
}

func (q queueRedrive) Run(ctx context.Context, s *streams) error {
	c, list, err := q.begin(ctx, s)
	if err != nil {
		return err
	}
	parked := int64(0)
	list = slices.DeleteFunc(list, func(f async.Waiting) bool { parked += f.Parked; return f.Parked == 0 })
	var did redrivenQueues
	if len(list) > 0 {
		yes, err := q.confirm(s, fmt.Sprintf("Tell %s of %s anew?", count(parked, "parked event", "parked events"), whom(list)))
		if !yes {
			return err
		}
		p := startProgress(s.err)
		defer p.end()
		for _, f := range list {
			left := int64(0)
			for todo := f.Parked; todo > 0; { // what is parked again meanwhile is not tried for ever
				p.set(fmt.Sprintf("%d of %d events are to be told anew", did.Events, parked))
				var one async.Redriven
				if err := c.change(ctx, http.MethodPost, f, url.Values{"limit": {strconv.FormatInt(min(todo, operator.MaxRedrive), 10)}}, &one); err != nil {
					return fmt.Errorf("%w (%s before)", err, count(did.Events, "event was redriven", "events were redriven"))
				}
				did.Events += one.Events
				if left, todo = one.Parked, todo-one.Events; one.Events == 0 {
					break
				}
			}
			did.Functions++
			did.Redriven.Parked += left
		}
		p.end()
	}
	switch {
	case q.JSON:
		return writeJSON(s.out, did)
	case did.Functions == 0:
		fmt.Fprintln(s.out, "Nothing is parked.")
	default:
		fmt.Fprintf(s.out, "%s told anew, of %s; kiln queue shows what cannot be.\n", count(did.Events, "event is", "events are"), whom(list))
	}
	return nil
}

// count is a number of something.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// whom names one function, or how many there are.
func whom(list []async.Waiting) string {
	if len(list) == 1 {
		return string(list[0].Name)
	}
	accounts := map[lambda.AccountID]bool{}
	for _, f := range list {
		accounts[f.Account] = true
	}
	if len(accounts) > 1 {
		return fmt.Sprintf("%d functions in %d accounts", len(list), len(accounts))
	}
	return fmt.Sprintf("%d functions", len(list))
}

// counted shows on a terminal how far something has come, once it has taken a second.
type counted struct {
	text chan string
	done chan struct{} // closed when nothing is shown any more
}

const (
	quietTime  = time.Second
	redrawTime = time.Second / 4
)

func startProgress(to io.Writer) *counted {
	p := &counted{text: make(chan string), done: make(chan struct{})}
	go p.run(to) // until end
	return p
}

func (p *counted) run(to io.Writer) {
	defer close(p.done)
	text, shown := "", false
	draw := time.NewTimer(quietTime)
	defer draw.Stop()
	for {
		select {
		case next, more := <-p.text:
			if !more {
				if shown {
					fmt.Fprint(to, "\r\x1b[K")
				}
				return
			}
			text = next
		case <-draw.C:
			if terminal(to) {
				fmt.Fprintf(to, "\r\x1b[K%s", text)
				shown = true
			}
			draw.Reset(redrawTime)
		}
	}
}

func (p *counted) set(text string) { p.text <- text }

// end may be called again.
func (p *counted) end() {
	select {
	case <-p.done:
	default:
		close(p.text)
		<-p.done
	}
}
