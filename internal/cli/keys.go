package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"kiln/internal/front/operator"
)

type keys struct {
	Create keysCreate `cmd:"" help:"Make an access key. The first one closes Kiln to everybody without a key."`
	List   keysList   `cmd:"" help:"Show the access keys in use, without their secrets."`
	Revoke keysRevoke `cmd:"" help:"End an access key, at once."`
}

const keysPath = "/_kiln/keys"

type keysCreate struct {
	remote
	Name    string `arg:"" help:"Who will have it: letters, digits and +=,.@_-, up to 64."`
	Account string `placeholder:"ID" help:"Account whose key it is; default your own."`
	Policy  string `placeholder:"FILE" help:"IAM policy: what the key may do; - is standard input. Without one it may do anything in its account."`
}

func (k keysCreate) Run(ctx context.Context, s *streams) error {
	order := operator.KeyOrder{Name: k.Name, Account: k.Account}
	if k.Policy != "" {
		policy, err := readPolicy(k.Policy, s.in)
		if err != nil {
			return err
		}
		order.Policy = policy
	}
	c, err := k.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	body, err := json.Marshal(order)
	if err != nil {
		return err
	}
	var made operator.Key
	if err := c.ask(ctx, http.MethodPost, keysPath, body, &made); err != nil {
		return c.explain(err)
	}
	if k.JSON {
		return writeJSON(s.out, made)
	}
	fmt.Fprintf(s.out, "Made %s of account %s, which may do %s.\nThe secret is shown only now:\n\n", made.Name, made.Account, may(made))
	fmt.Fprintf(s.out, "  export AWS_ACCESS_KEY_ID=%s\n  export AWS_SECRET_ACCESS_KEY=%s\n", made.ID, made.Secret)
	if made.First {
		fmt.Fprint(s.out, "\nThis is the first key: from now on every request must be signed with a key.\n")
	}
	return nil
}

// readPolicy reads a policy, which travels as JSON in JSON.
func readPolicy(path string, in io.Reader) (json.RawMessage, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(in)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	if !json.Valid(text) {
		return nil, fmt.Errorf("the policy in %s is not JSON", path)
	}
	return text, nil
}

func may(k operator.Key) string {
	if k.Policy == nil {
		return "anything in its account"
	}
	return "what its policy allows"
}

type keysList struct {
	remote
	Account string `placeholder:"ID" help:"Only keys of this account."`
}

func (k keysList) Run(ctx context.Context, s *streams) error {
	c, err := k.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	query := url.Values{}
	if k.Account != "" {
		query.Set("account", k.Account)
	}
	var list operator.KeyList
	if err := c.get(ctx, keysPath, query, &list); err != nil {
		return c.explain(err)
	}
	if k.JSON {
		return writeJSON(s.out, list.Keys)
	}
	if len(list.Keys) == 0 {
		fmt.Fprintln(s.out, "No keys. Make one with: kiln keys create NAME")
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tACCOUNT\tACCESS KEY\tCREATED\tMAY DO")
	for _, key := range list.Keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", key.Name, key.Account, key.ID, key.Created.Format(time.RFC3339), may(key))
	}
	return w.Flush()
}

type keysRevoke struct {
	remote
	Key     string `arg:"" help:"Name or id of the key."`
	Account string `placeholder:"ID" help:"Account whose key it is; default your own."`
}

func (k keysRevoke) Run(ctx context.Context, s *streams) error {
	c, err := k.connect(ctx, s.getenv)
	if err != nil {
		return err
	}
	query := url.Values{}
	if k.Account != "" {
		query.Set("account", k.Account)
	}
	var ended operator.Key
	if err := c.ask(ctx, http.MethodDelete, keysPath+"/"+url.PathEscape(k.Key)+"?"+query.Encode(), nil, &ended); err != nil {
		return c.explain(err)
	}
	if k.JSON {
		return writeJSON(s.out, ended)
	}
	_, err = fmt.Fprintf(s.out, "%s (%s of account %s) is revoked\n", ended.ID, ended.Name, ended.Account)
	return err
}
