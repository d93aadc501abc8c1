package bootstrap

import (
	"context"

	"kiln/internal/lambda"
)

// Entry is one identifier with what serves it here.
type Entry struct {
	Addition                  // the identifier, and what was added to it
	Installation Installation // empty for provided runtimes and missing ones
	Substitute   string       // which other version serves it, or ""
	Missing      string       // why it cannot be used, or ""
	Bundles      bool         // there are packages that can be added
}

// Listing is what `kiln doctor` and `kiln runtime list` show.
type Listing struct {
	Entries  []Entry
	Problems []Problem
}

// List says of every identifier that Kiln has a family for, or a base image, what
// serves it, waiting for discovery.
func (c *Catalog) List(ctx context.Context) (Listing, error) {
	var l Listing
	for _, s := range c.families {
		if err := c.take(ctx, s); err != nil {
			return Listing{}, err
		}
		for _, ident := range s.Identifiers() {
			_, bundles := s.Family.(Bundler)
			e := Entry{Addition: c.config.Additions.Get(ident.ID), Bundles: bundles}
			if e.Image != nil {
				l.Entries = append(l.Entries, e)
				continue
			}
			in, substitute, err := c.choose(s, ident)
			if refused := lambda.AsError(err); refused != nil {
				e.Missing = refused.Message
			} else {
				e.Installation, e.Substitute = in, substitute
			}
			l.Entries = append(l.Entries, e)
		}
		l.Problems = append(l.Problems, s.problems...)
		s.release()
	}
	for _, id := range c.config.Additions.based() { // an image needs no family
		if _, _, offered := c.shelfOf(id); !offered {
			l.Entries = append(l.Entries, Entry{Addition: c.config.Additions.Get(id)})
		}
	}
	return l, nil
}
